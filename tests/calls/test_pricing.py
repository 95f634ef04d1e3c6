"""What a call costs, and the most that it can: by given prices, and by the installed list."""

from __future__ import annotations

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calls import prices as price_list
from pipeline.calls.prices import ListPrice
from pipeline.calls.pricing import SIMULATED, UNKNOWN, Given, Rates, step
from pipeline.core.purse import PICOS
from pipeline.core.usage import Cost, Usage

SOURCE = f"genai-prices {genai_prices.__version__}"

#: one of each kind: plain, cached input, tiers, a price a request, reasoning apart, hours of the day, free
MODELS = [
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-5"),
    ("openai", "gpt-5.5"),
    ("google", "gemini-2.5-pro"),
    ("anthropic", "claude-sonnet-4-5"),
    ("perplexity", "sonar-pro"),
    ("perplexity", "sonar-deep-research"),
    ("deepseek", "deepseek-chat"),
]


def listed(model: str, provider: str, usage: Usage) -> float:
    counted = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if usage.cached_input_tokens:
        counted["cache_read_tokens"] = usage.cached_input_tokens
    if usage.reasoning_tokens:
        counted["output_reasoning_tokens"] = usage.reasoning_tokens
    return float(genai_prices.calc_price(genai_prices.Usage(**counted), model, provider_id=provider).total_price)


@pytest.mark.parametrize(("provider", "model"), MODELS)
@pytest.mark.parametrize(
    "usage",
    [Usage(1000, 10, requests=1), Usage(1000, 100, 300, 50, 1), Usage(300_000, 1000, 1000, 100, 1), Usage(requests=1)],
)
def test_a_cost_is_what_the_list_calculates(provider: str, model: str, usage: Usage) -> None:
    assert ListPrice(model, provider).cost(usage) == Cost(listed(model, provider, usage), SOURCE)


def test_cached_input_and_reasoning_have_their_own_prices() -> None:
    plain = ListPrice("gpt-5", "openai").cost(Usage(1000, 0, requests=1))
    cached = ListPrice("gpt-5", "openai").cost(Usage(1000, 0, cached_input_tokens=1000, requests=1))
    assert (plain.usd, cached.usd) == (0.00125, 0.000125)
    research = ListPrice("sonar-deep-research", "perplexity")
    aloud, thought = research.cost(Usage(0, 1000, requests=1)).usd, research.cost(Usage(0, 1000, 0, 1000, 1)).usd
    assert aloud is not None
    assert thought is not None
    assert thought < aloud


@pytest.mark.parametrize(("provider", "model"), MODELS)
@given(read=st.integers(0, 400_000), written=st.integers(0, 100_000), data=st.data())
def test_no_cost_is_above_the_most(provider: str, model: str, read: int, written: int, data: st.DataObject) -> None:
    tariff = TARIFFS.setdefault((provider, model), ListPrice(model, provider))
    most = tariff.most(read, written)
    asked, answered = data.draw(st.integers(0, read)), data.draw(st.integers(0, written))
    cached, thought = data.draw(st.integers(0, asked)), data.draw(st.integers(0, answered))
    usd = tariff.cost(Usage(asked, answered, cached, thought, 1)).usd
    assert most is not None
    assert usd is not None
    assert round(usd * PICOS) <= most


TARIFFS: dict[tuple[str, str], ListPrice] = {}


def test_the_most_of_a_small_request_knows_no_tier_for_large_ones() -> None:
    tariff = ListPrice("gemini-2.5-pro", "google")
    assert (tariff.most(200_000, 0), tariff.most(200_001, 0)) == (PICOS // 4, 200_001 * 2_500_000)


def test_the_most_is_that_of_the_dearest_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list has a model that is cheaper at night."""
    model = next(
        model
        for model in next(each for each in get_snapshot().providers if each.id == "deepseek").models
        if isinstance(model.prices, list) and any("Time" in type(each.constraint).__name__ for each in model.prices)
    )
    costs: list[float | None] = []
    for hour in range(24):
        monkeypatch.setattr(price_list.time, "time", lambda hour=hour: 1_790_000_000 // 86_400 * 86_400 + hour * 3600.0)
        costs.append(ListPrice(model.id, "deepseek").cost(Usage(0, 1_000_000, requests=1)).usd)
    assert len(set(costs)) > 1
    most = ListPrice(model.id, "deepseek").most(0, 1_000_000)
    assert most == round(max(each for each in costs if each is not None) * PICOS)


@pytest.mark.parametrize(
    ("model", "provider"), [("no-such-model", "openai"), ("gpt-4o-mini", None), ("gpt-4o-mini", "nobody")]
)
def test_an_unknown_price_is_null_and_never_nothing(model: str, provider: str | None) -> None:
    tariff = ListPrice(model, provider)
    assert (tariff.cost(Usage(1, 1)), tariff.most(1, 1)) == (UNKNOWN, None)
    assert UNKNOWN.usd is None


def test_a_model_that_does_not_write_has_no_price_for_answers() -> None:
    assert ListPrice("text-embedding-3-small", "openai").cost(Usage(10, 10)) == UNKNOWN


def test_given_prices_are_counted_without_rounding() -> None:
    tariff = Given.of({"input": 2.5, "output": 10, "cached_input": 0.25})
    assert tariff.cost(Usage(1000, 100, 400, 50, 1)) == Cost(0.0026, "given")
    assert tariff.most(1000, 100) == (1000 * 2_500_000 + 100 * 10_000_000)
    assert Given.of({"input": 0.0375, "output": 0.15}).most(3, 0) == 3 * 37_500


def test_cached_input_that_has_no_price_costs_as_other_input() -> None:
    tariff = Given.of({"input": 2.0, "output": 8.0})
    assert tariff.cost(Usage(1000, 0, 400, 0, 1)) == tariff.cost(Usage(1000, 0, 0, 0, 1))


def test_cached_input_that_is_dearer_is_in_the_most() -> None:
    assert Given.of({"input": 1, "output": 1, "cached_input": 3}).most(10, 0) == 10 * 3_000_000


def test_prices_are_of_a_million_tokens() -> None:
    rates = Rates.flat(1, 2)
    assert (rates.usd(Usage(1_000_000, 0)), rates.usd(Usage(0, 1_000_000)), step(rates.input[0][1])) == (
        1.0,
        2.0,
        10**12,
    )


def test_a_simulated_model_costs_nothing() -> None:
    assert (SIMULATED.cost(Usage(1000, 1000)), SIMULATED.most(10**6, 10**6)) == (Cost(0.0, "simulated"), 0)
