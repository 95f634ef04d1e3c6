"""Quantities: each form, and what is said of anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.units import WrongForm, budget, count, count_or_share, duration, money, rate, share
from pipeline.core.budget import Budget

NO_BUDGET = "is not a budget: write 5usd, 2Mtok, 10kreq or 5usd,2Mtok"

READERS: list[Callable[[str], object]] = [duration, count, share, count_or_share, rate, money, budget]


@pytest.mark.parametrize(
    ("reader", "text", "value"),
    [
        (duration, "250ms", 0.25),
        (duration, "30s", 30.0),
        (duration, "2m", 120.0),
        (duration, "1h", 3600.0),
        (duration, "1h30m", 5400.0),
        (duration, "0.1s", 0.1),
        (duration, "none", None),
        (count, "16", 16),
        (count, "25.6k", 25_600),
        (count, "1M", 1_000_000),
        (count, "0", 0),
        (share, "3%", 0.03),
        (share, "100%", 1.0),
        (count_or_share, "10", 10),
        (count_or_share, "5%", 0.05),
        (rate, "500/min", 500.0),
        (rate, "200k/min", 200_000.0),
        (rate, "10/s", 600.0),
        (rate, "60/h", 1.0),
        (rate, "500", 500.0),
        (money, "5usd", 5.0),
        (money, "0.50 USD", 0.5),
        (budget, "5usd", Budget(usd=5.0)),
        (budget, "0.1 USD", Budget(usd=0.1)),
        (budget, "2Mtok", Budget(tokens=2_000_000)),
        (budget, "10kreq", Budget(requests=10_000)),
        (budget, "0.5usd, 2Mtok,3req", Budget(0.5, 2_000_000, 3)),
    ],
)
def test_a_quantity_is_read(reader: Callable[[str], object], text: str, value: object) -> None:
    assert reader(text) == value
    assert type(reader(text)) is type(value)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (duration, "5 minutes", "'5 minutes' is not a duration: write 250ms, 30s, 2m, 1h or none"),
        (duration, "60", "'60' is not a duration: write 250ms, 30s, 2m, 1h or none; did you mean 60s?"),
        (duration, "30s!", "'30s!' is not a duration: write 250ms, 30s, 2m, 1h or none"),
        (duration, "", "'' is not a duration: write 250ms, 30s, 2m, 1h or none"),
        (duration, "٣s", "'٣s' is not a duration: write 250ms, 30s, 2m, 1h or none"),
        (count, "-1", "'-1' is not a count: write a whole number like 16, 25.6k or 1M"),
        (count, "1.5", "'1.5' is not a count: write a whole number like 16, 25.6k or 1M"),
        (count, "1" * 50, f"'{'1' * 37}...' is not a count: write a whole number like 16, 25.6k or 1M"),
        (share, "101%", "'101%' is not a share: write 3% (from 0% to 100%)"),
        (share, "0.03", "'0.03' is not a share: write 3% (from 0% to 100%)"),
        (count_or_share, "few", "'few' is neither a count nor a share: write 10 or 5%"),
        (count_or_share, "200%", "'200%' is not a share: write 3% (from 0% to 100%)"),
        (rate, "500/day", "'500/day' is not a rate: write 500/min, 200k/min or 10/s"),
        (rate, "x/min", "'x/min' is not a rate: write 500/min, 200k/min or 10/s"),
        (money, "$5", "'$5' is not an amount of money: write 5usd or 0.50usd"),
        (budget, "$5", f"'$5' {NO_BUDGET}; did you mean 5usd?"),
        (budget, "0.5", f"'0.5' {NO_BUDGET}; did you mean 0.5usd?"),
        (budget, "5eur", f"'5eur' {NO_BUDGET}"),
        (budget, "1.5req", f"'1.5req' {NO_BUDGET}"),
        (budget, "-1usd", f"'-1usd' {NO_BUDGET}"),
        (budget, "1kusd", f"'1kusd' {NO_BUDGET}"),
        (budget, "5usd,6usd", f"'5usd,6usd' {NO_BUDGET}"),
        (budget, "5usd,", f"'5usd,' {NO_BUDGET}"),
    ],
)
def test_anything_else_is_refused_with_the_right_form(reader: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(WrongForm) as caught:
        reader(text)
    assert str(caught.value) == message


@given(st.text(max_size=20))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    for reader in READERS:
        try:
            value = reader(text)
        except WrongForm:
            continue
        assert value is None or (isinstance(value, int | float) and value >= 0)
