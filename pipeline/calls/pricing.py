"""What a call costs: what it did cost, from its usage, and the most that it can cost, from its bounds.

Money is counted in whole picodollars a token, which every price of a million tokens is, so that sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol, TypeAlias

from pipeline.core.purse import PICOS
from pipeline.core.usage import Cost, Usage

UNKNOWN: Final = Cost(None, "unknown price")

_MILLION: Final = 1_000_000

#: picodollars a token, for requests of more input tokens than so many; the first step is for all
Steps: TypeAlias = tuple[tuple[int, Decimal], ...]


class Tariff(Protocol):
    """The prices of one model."""

    def cost(self, usage: Usage) -> Cost:
        """What `usage` of one request costs; `usd` is None when there is no price for it, never 0."""
        ...

    def most(self, input_tokens: int, output_tokens: int) -> int | None:
        """The most picodollars that a request of at most so many tokens can cost; None when there is no price."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs at one time."""

    input: Steps
    output: Steps
    cached_input: Steps  #: what the server read from its cache
    written_input: Steps = ()  #: what it may put into its cache, which answers do not tell
    reasoning: Steps = ()  #: empty: as other output
    request: Decimal = Decimal(0)

    @classmethod
    def flat(cls, input: float, output: float, cached_input: float | None = None) -> Rates:
        """Rates from US dollars a million tokens."""
        cached = input if cached_input is None else cached_input
        return cls(_flat(input), _flat(output), _flat(cached))

    def usd(self, usage: Usage) -> float:
        """The price of one request."""
        read, written = usage.input_tokens, usage.output_tokens
        cached, reasoned = min(usage.cached_input_tokens, read), min(usage.reasoning_tokens, written)
        amount = (
            (read - cached) * _rate(self.input, read)
            + cached * _rate(self.cached_input, read)
            + (written - reasoned) * _rate(self.output, read)
            + reasoned * _rate(self.reasoning or self.output, read)
            + self.request
        )
        return float(amount / PICOS)

    def most(self, input_tokens: int, output_tokens: int) -> int:
        """The most picodollars: every token at the dearest rate that a request of this size can meet."""
        kinds = (self.input, self.cached_input, self.written_input), (self.output, self.reasoning)
        read, written = (max(_highest(steps, input_tokens) for steps in kind) for kind in kinds)
        return math.ceil(input_tokens * read + output_tokens * written + self.request)


@dataclass(frozen=True, slots=True)
class Given:
    """Prices that somebody has written down. Satisfies `Tariff`."""

    rates: Rates
    source: str = "given"

    @classmethod
    def of(cls, price: Mapping[str, float]) -> Given:
        """The prices of `{input: 2.5, output: 10, cached_input: 0.25}`, US dollars a million tokens."""
        return cls(Rates.flat(price["input"], price["output"], price.get("cached_input")))

    def cost(self, usage: Usage) -> Cost:
        return Cost(self.rates.usd(usage), self.source)

    def most(self, input_tokens: int, output_tokens: int) -> int:
        return self.rates.most(input_tokens, output_tokens)


def step(usd: Decimal) -> Decimal:
    """Picodollars a token, of US dollars a million tokens."""
    return usd * (PICOS // _MILLION)


def _flat(usd: float) -> Steps:
    return ((-1, step(Decimal(str(usd)))),)


def _rate(steps: Steps, input_tokens: int) -> Decimal:
    """The rate that holds for all tokens of a request with so many input tokens."""
    return next((price for start, price in reversed(steps) if input_tokens > start), Decimal(0))


def _highest(steps: Steps, input_tokens: int) -> Decimal:
    return max((price for start, price in steps if input_tokens > start), default=Decimal(0))


SIMULATED: Final = Given(Rates.flat(0, 0), "simulated")
