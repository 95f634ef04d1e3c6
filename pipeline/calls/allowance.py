"""A share of all calls that may do something costly, such as being tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AllowanceStatistics:
    """An allowance at one instant."""

    what: str
    share: float
    taken: int
    refused: int

    def __str__(self) -> str:
        refused = f", {self.refused} more {'was' if self.refused == 1 else 'were'} refused" if self.refused else ""
        return f"{self.what}: {self.taken}, at most {self.share:.0%} of calls{refused}"


class Allowance:
    """Each call earns `share` of one, up to `burst`; with `burst` in hand it begins."""

    def __init__(self, what: str, share: float, burst: float) -> None:
        self.what = what
        self.share = share
        self.burst = burst
        self.left = burst
        self.taken = 0
        self.refused = 0

    def earn(self) -> None:
        """Count one call."""
        self.left = min(self.burst, self.left + self.share)

    def take(self) -> bool:
        """Take one, if there is one; say whether there was."""
        if self.left + 1e-9 < 1.0:  # ten tenths are a little less than one
            self.refused += 1
            return False
        self.left -= 1.0
        self.taken += 1
        return True

    def give_back(self) -> None:
        """What was taken was not needed."""
        self.left = min(self.burst, self.left + 1.0)
        self.taken -= 1

    def statistics(self) -> AllowanceStatistics | None:
        """None while none was asked for."""
        if not self.taken and not self.refused:
            return None
        return AllowanceStatistics(self.what, self.share, self.taken, self.refused)
