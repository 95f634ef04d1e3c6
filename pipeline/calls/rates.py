"""What an account may send a minute, as somebody knows it: the user, or the server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.calls.rate_headers import DIMENSIONS, Dimension


@dataclass(frozen=True, slots=True)
class Rates:
    """The numbers of a minute; None where nobody gave one."""

    requests: float | None = None
    tokens: float | None = None  #: input and output together
    input_tokens: float | None = None
    output_tokens: float | None = None

    def of(self, dimension: Dimension) -> float | None:
        return getattr(self, dimension)

    def given(self) -> Iterator[tuple[Dimension, float]]:
        for dimension in DIMENSIONS:
            limit = self.of(dimension)
            if limit is not None:
                yield dimension, limit

    def lowest(self, other: Rates) -> Rates:
        """The lower number of each dimension: what both may rely on."""
        return Rates(**{name: lower(self.of(name), other.of(name)) for name in DIMENSIONS})


def lower(one: float | None, other: float | None) -> float | None:
    """Return the lower one; what is not known is no bound."""
    known = [each for each in (one, other) if each is not None]
    return min(known) if known else None
