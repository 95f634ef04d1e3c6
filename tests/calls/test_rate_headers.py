"""What a server says of its rates, in every form that servers write it, and in forms that nobody should."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calls.estimate import Charge, Guess
from pipeline.calls.quota import LONGEST_PAUSE, Quota
from pipeline.calls.rate_headers import Announced, rates_announced
from pipeline.calls.rates import Rates
from tests.calls.saturating import request

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
ONE = Guess(Charge(10.0, 10.0), 10.0)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("2d", 172800.0),
        ("59.97", 59.97),
        ("12", 12.0),
        ("2026-01-01T12:00:30Z", 30.0),
        ("2026-01-01T12:00:30", 30.0),
        ("2026-01-01T13:00:30+01:00", 30.0),
        ("2026-01-01T11:59:30Z", None),
        ("0s", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
        ("9" * 500, None),
        ("٣", None),
    ],
)
def test_every_form_of_reset_is_read(written: str, seconds: float | None) -> None:
    said = rates_announced({"x-ratelimit-limit-requests": "5", "x-ratelimit-reset-requests": written}, NOW)
    assert said["requests"].reset == (None if seconds is None else pytest.approx(seconds))


def test_each_dimension_is_read_by_itself() -> None:
    headers = {
        "x-ratelimit-limit-requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-remaining-tokens": "149984",
        "x-request-id": "7",
    }
    assert rates_announced(headers, NOW) == {"requests": Announced(500.0, 499.0), "tokens": Announced(None, 149984.0)}


def test_input_and_output_apart_stand_for_the_tokens_of_both() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-tokens-limit": "50000",
        "anthropic-ratelimit-input-tokens-limit": "50000",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T12:00:01Z",
        "anthropic-ratelimit-output-tokens-remaining": "8000",
    }
    assert rates_announced(headers, NOW) == {
        "requests": Announced(50.0),
        "input_tokens": Announced(50000.0, None, 1.0, exact=False),
        "output_tokens": Announced(None, 8000.0),
    }


@pytest.mark.parametrize(("limit", "remaining"), [("0", "0"), ("-1", "-1"), ("0", "7"), ("many", "few")])
def test_what_cannot_be_counts_as_not_said(limit: str, remaining: str) -> None:
    assert rates_announced({"x-ratelimit-limit-tokens": limit, "x-ratelimit-remaining-tokens": remaining}, NOW) == {}


def test_without_any_there_is_nothing_to_read() -> None:
    assert rates_announced({"content-type": "application/json"}, NOW) == {}


VALUES = st.one_of(
    st.text(max_size=70),
    st.integers().map(str),
    st.floats().map(str),
    st.from_regex(r"\d{0,30}(ms|s|m|h|d)?(\d+(\.\d+)?s)?", fullmatch=True),
    st.datetimes().map(lambda when: when.isoformat()),
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            f"{form}-{dimension}" if form.startswith("x-") else f"anthropic-ratelimit-{dimension}-{form}"
            for form in (
                "x-ratelimit-limit",
                "x-ratelimit-remaining",
                "x-ratelimit-reset",
                "limit",
                "remaining",
                "reset",
            )
            for dimension in ("requests", "tokens", "input-tokens", "output-tokens")
        ]
    ),
    VALUES,
)


@settings(deadline=None, max_examples=60)
@given(st.lists(HEADERS, min_size=1, max_size=5), st.booleans())
def test_no_header_can_crash_the_quota_or_stall_it_for_ever(answers: list[dict[str, str]], rated: bool) -> None:
    now = 0.0
    quota = Quota(now, Rates(requests=600, tokens=100_000) if rated else None)
    for headers in answers:
        ready = quota.ready_at(ONE, now)
        assert now <= ready <= now + LONGEST_PAUSE + 1300.0
        now = ready + 0.001
        ticket = quota.send(ONE, now)
        now += 0.5
        quota.settle(ticket, Charge(10.0, 10.0), now, ONE)
        quota.learn(ticket, rates_announced(headers, NOW), now)
    assert quota.ready_at(ONE, now) <= now + 1300.0


def test_a_request_has_the_tokens_that_its_characters_say() -> None:
    assert len(request(1, 10.0).messages[0].content) == 40
