"""Equal calls at the same time: one is made, the others wait for its answer, and nobody waits for one that is gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from pipeline.core.ports import Visit


class Flights:
    """The calls that are being made, by key, and who waits for the answer of each."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Visit] = {}
        self._waiting: dict[bytes, deque[Follower]] = {}

    def lead(self, key: bytes, visit: Visit) -> bool:
        """Say whether this call is the one to be made; else there is one in flight."""
        if key in self._leaders:
            return False
        self._leaders[key] = visit
        return True

    def follow(self, key: bytes) -> Follower:
        """Wait for the call in flight: until there is its answer, or this call is to be made itself."""
        follower = Follower(self._leaders[key])
        self._waiting.setdefault(key, deque()).append(follower)
        return follower

    def land(self, key: bytes, answer: str | None) -> None:
        """The call in flight was answered, and all who wait have it; if it is not for others, each makes its own."""
        del self._leaders[key]
        for follower in self._waiting.pop(key, ()):
            follower.answer, follower.alone = answer, answer is None
            follower.told.set()

    def abandon(self, key: bytes) -> None:
        """The call in flight failed or was cancelled: who waits first makes it now, and the others wait for that."""
        del self._leaders[key]
        self._call_next(key)

    def leave(self, key: bytes, follower: Follower) -> None:
        """Who waits does so no more. If it had just been told to make the call, the next one is."""
        waiting = self._waiting.get(key, ())
        if follower in waiting:
            self._remove(key, follower)
        elif key not in self._leaders and follower.is_to_lead:
            self._call_next(key)

    def _call_next(self, key: bytes) -> None:
        if waiting := self._waiting.get(key):
            self._remove(key, waiting[0]).told.set()

    def _remove(self, key: bytes, follower: Follower) -> Follower:
        waiting = self._waiting[key]
        waiting.remove(follower)
        if not waiting:
            del self._waiting[key]
        return follower


class Follower:
    """A call that waits for an equal one. Satisfies `ports.Hold`."""

    __slots__ = ("_leader", "alone", "answer", "told")

    def __init__(self, leader: Visit) -> None:
        self._leader = leader
        self.told = anyio.Event()
        self.answer: str | None = None
        self.alone = False

    @property
    def is_to_lead(self) -> bool:
        return self.told.is_set() and self.answer is None and not self.alone

    def __str__(self) -> str:
        return "the answer to an equal call"

    def holders(self) -> Sequence[Visit]:
        return (self._leader,)
