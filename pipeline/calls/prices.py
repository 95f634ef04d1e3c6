"""The price list that is installed. Nothing is fetched, and what is not in it has no price.

It is loaded when the first price is needed. Equal installations agree, but for models whose price has its hours.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from pipeline.calls.pricing import UNKNOWN, Rates, Steps, step
from pipeline.core.usage import NO_USAGE, Cost, Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, TieredPrices

_QUARTER: Final = 900  #: seconds; no price changes in between
_DAY: Final = 86_400 // _QUARTER


@dataclass(slots=True)
class ListPrice:
    """The listed prices of one model. Satisfies `Tariff`. What can change: what it has looked up, with the hour."""

    model: str
    provider: str | None  #: the list's name of it
    _now: tuple[int, Rates | None] = field(default=(-1, None), repr=False, compare=False)
    _day: tuple[Rates, ...] | None = field(default=None, repr=False, compare=False)

    async def load(self) -> None:
        """Load the list outside the event loop, if it is to be asked; that takes a third of a second."""
        if self.provider is not None and "genai_prices" not in sys.modules:
            await anyio.to_thread.run_sync(self.cost, NO_USAGE)

    def cost(self, usage: Usage) -> Cost:
        if self.provider is None:
            return UNKNOWN
        import genai_prices

        quarter = int(time.time()) // _QUARTER
        if self._now[0] != quarter:
            self._now = (quarter, self._at(quarter))
        rates = self._now[1]
        return UNKNOWN if rates is None else Cost(rates.usd(usage), f"genai-prices {genai_prices.__version__}")

    def most(self, input_tokens: int, output_tokens: int) -> int | None:
        """As `Tariff.most`, at the dearest hour of the day that follows the first question."""
        if self.provider is None:
            return None
        if self._day is None:
            self._day = tuple(self._of_a_day(int(time.time()) // _QUARTER))
        return max((rates.most(input_tokens, output_tokens) for rates in self._day), default=None)

    def _of_a_day(self, quarter: int) -> Iterator[Rates]:
        seen: list[Rates] = []
        for later in range(_DAY + 1):
            rates = self._at(quarter + later)
            if rates is None:
                return
            if rates not in seen:
                seen.append(rates)
                yield rates

    def _at(self, quarter: int) -> Rates | None:
        """The rates of a quarter of an hour, as it ends; None when the model or its price is not in the list."""
        import genai_prices

        when = datetime.fromtimestamp(quarter * _QUARTER, UTC) + timedelta(seconds=_QUARTER - 1)
        one = genai_prices.Usage(input_tokens=1, output_tokens=1)
        try:
            found = genai_prices.calc_price(
                one, self.model, provider_id=self.provider, genai_request_timestamp=when
            ).model_price
        except (LookupError, ValueError):  # not in the list; or priced by something that an answer does not tell
            return None
        return _rates(found)


def _rates(price: ModelPrice) -> Rates | None:
    if price.input_mtok is None or price.output_mtok is None:
        return None
    cached = price.cache_read_mtok
    requests = price.requests_kcount
    return Rates(
        _steps(price.input_mtok),
        _steps(price.output_mtok),
        _steps(price.input_mtok if cached is None else cached),
        _steps(price.cache_write_mtok),
        _steps(price.output_reasoning_mtok),
        step(requests * 1000) if isinstance(requests, Decimal) else Decimal(0),
    )


def _steps(price: Decimal | TieredPrices | None) -> Steps:
    if price is None:
        return ()
    if isinstance(price, Decimal):
        return ((-1, step(price)),)
    return ((-1, step(price.base)), *((tier.start, step(tier.price)) for tier in price.tiers))
