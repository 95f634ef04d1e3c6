"""How many records that cannot be read are put up with, before it is the input that is wrong."""

from __future__ import annotations

from dataclasses import dataclass

JUDGED_FROM = 20  #: records; a share of fewer says nothing


@dataclass(frozen=True, slots=True)
class Tolerance:
    """At most `count` bad records, or, if that is more, at most `share` of those read so far."""

    count: int = 100
    share: float = 0.1

    @classmethod
    def of(cls, asked: int | float | None) -> Tolerance:
        """Read an option: an int is a count, a float a share, None the default."""
        if asked is None:
            return cls()
        return cls(0, asked) if isinstance(asked, float) else cls(asked, 0.0)

    def exceeded(self, bad: int, read: int) -> bool:
        """Say whether that is too many."""
        if bad <= self.count:
            return False
        return not self.share or (read >= JUDGED_FROM and bad > self.share * read)

    def __str__(self) -> str:
        part = f"{self.share * 100:g}%"
        if not self.count and self.share:
            return part
        return f"{self.count:,}, or {part} if that is more" if self.share else f"{self.count:,}"
