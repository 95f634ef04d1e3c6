"""How many visits of one stage are at work at once: its slots.

A slot belongs to a visit's own lease, never to an item, because equal items would collide.
"""

from __future__ import annotations

from dataclasses import dataclass

from anyio import CapacityLimiter


@dataclass(frozen=True, slots=True)
class SlotStatistics:
    """The slots of one stage at one instant."""

    total: int
    borrowed: int
    waiting: int
    sleeping: int  #: visits that gave their slot back until their next attempt


def check_slots(total: int) -> None:
    """Raise `ValueError` unless `total` can be a number of slots."""
    if type(total) is not int or total < 1:
        raise ValueError(f"concurrency must be a whole number of at least 1, got {total!r}")


class Slots:
    """The slots of one stage in one run. `total` may change while the run goes on."""

    __slots__ = ("_limiter", "acquire_nowait", "contended", "release", "sleeping", "total")

    def __init__(self, total: int) -> None:
        self._limiter = CapacityLimiter(total)
        self.acquire_nowait = self._limiter.acquire_on_behalf_of_nowait
        self.release = self._limiter.release_on_behalf_of
        self.total = total
        self.contended = 0  #: visits that wait for a slot
        self.sleeping = 0

    async def acquire(self, lease: object) -> None:
        """Wait for a slot on behalf of `lease`; first come, first served."""
        self.contended += 1
        try:
            await self._limiter.acquire_on_behalf_of(lease)
        finally:
            self.contended -= 1

    def resize(self, total: int) -> None:
        """Change how many there are. Visits at work keep theirs; lowering takes effect as they end."""
        check_slots(total)
        self.total = total
        self._limiter.total_tokens = total

    @property
    def leases(self) -> tuple[object, ...]:
        """On behalf of whom slots are taken."""
        return self._limiter.statistics().borrowers

    @property
    def borrowed(self) -> int:
        return int(self._limiter.borrowed_tokens)

    def statistics(self) -> SlotStatistics:
        return SlotStatistics(self.total, self.borrowed, self.contended, self.sleeping)
