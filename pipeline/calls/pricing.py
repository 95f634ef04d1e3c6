"""What a call cost, from the price list that is installed; nothing is fetched, and an unknown price stays unknown."""

from __future__ import annotations

from pipeline.core.usage import Cost, Usage

UNKNOWN = Cost(None, "unknown price")
SIMULATED = Cost(0.0, "simulated")


def price(usage: Usage, model: str, provider: str | None) -> Cost:
    """Return the cost of `usage` at `provider` (the price list's name of it); `usd` is None when it has no price.

    The price list is loaded when it is first needed. It is the installed one, so equal installations agree.
    """
    if provider is None:
        return UNKNOWN
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
    )
    try:
        calculation = genai_prices.calc_price(counted, model, provider_id=provider)
    except (LookupError, ValueError):  # not in the list; or priced by something that an answer does not tell
        return UNKNOWN
    return Cost(float(calculation.total_price), f"genai-prices {genai_prices.__version__}")
