"""Sums of usage and cost are exact: no order of charging changes them, and parts add up to the whole."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from pipeline.core.usage import Account, Cost, RunAccount, Usage

ATTEMPTS = [
    (Usage(7, 3, 2, 1, 1), Cost(0.1, "given")),
    (Usage(11, 0, 0, 0, 1, estimated=True), Cost(0.2, "simulated")),
    (Usage(requests=1), None),
    (Usage(5, 9, 0, 4, 1), Cost(0.3, "cache")),
    (Usage(1, 1, 1, 1, 1), Cost(1e9 / 3, "given")),
]


def charged(*attempts: tuple[Usage, Cost | None]) -> Account:
    account = Account()
    for usage, cost in attempts:
        account.charge(usage, cost)
    return account


def test_an_account_is_the_same_in_whatever_order_it_was_charged() -> None:
    seen = {(account.usage, account.cost) for each in permutations(ATTEMPTS) for account in [charged(*each)]}
    assert len({sum(cost.usd or 0 for _, cost in each if cost) for each in permutations(ATTEMPTS)}) > 1  # of floats
    (found,) = seen
    assert found == (
        Usage(24, 13, 3, 6, 5, estimated=True),
        Cost(333333333.93333334, "cache + given + simulated"),
    )


def test_accounts_that_are_handed_over_are_the_same_in_whatever_order_and_end_empty() -> None:
    seen: set[tuple[Usage, Cost | None]] = set()
    for each in permutations(ATTEMPTS):
        whole, parts = Account(), [charged(attempt) for attempt in each]
        for part in parts:
            part.hand_over(whole)
            part.hand_over(whole)  # it has nothing any more
        assert {(part.usage, part.cost) for part in parts} == {(Usage(), None)}
        seen.add((whole.usage, whole.cost))
    assert seen == {(charged(*ATTEMPTS).usage, charged(*ATTEMPTS).cost)}


def test_one_attempt_costs_what_it_was_said_to_cost() -> None:
    for usd in (0.1, 0.00012345, 2.5e-6, 1e-12, 0.0, 123456.789, None):
        assert charged((Usage(), Cost(usd, "given"))).cost == Cost(usd, "given")
    assert charged((Usage(requests=1), None)).cost is None


def test_a_part_without_a_price_leaves_the_whole_without_one() -> None:
    unknown = (Usage(requests=1), Cost(None, "unknown price"))
    for each in permutations([*ATTEMPTS[:2], unknown]):
        account = charged(*each)
        assert account.cost == Cost(None, "given + simulated + unknown price")
        whole = charged(ATTEMPTS[3])
        account.hand_over(whole)
        assert whole.cost == Cost(None, "cache + given + simulated + unknown price")
        assert account.cost is None
        account.charge(*ATTEMPTS[0])  # what was handed over is forgotten
        assert account.cost == Cost(0.1, "given")


def test_a_cost_of_several_sources_names_each_once() -> None:
    account = charged((Usage(), Cost(1.0, "b + c")), (Usage(), Cost(1.0, "a")), (Usage(), Cost(1.0, "c + a")))
    assert account.cost == Cost(3.0, "a + b + c")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_parts_add_up_to_the_whole_and_the_first_have_the_remainders(count: int) -> None:
    whole = charged(*ATTEMPTS)
    parts = [whole.share(place, count) for place in range(count)]
    tokens = [part.usage.input_tokens for part in parts]
    assert (sum(tokens), max(tokens) - min(tokens) <= 1, tokens) == (24, True, sorted(tokens, reverse=True))
    together = Account()
    for part in parts:
        part.hand_over(together)
    assert (together.usage, together.cost) == (whole.usage, whole.cost)


def test_parts_of_what_has_no_price_have_none() -> None:
    whole = charged((Usage(requests=3), Cost(None, "unknown price")), ATTEMPTS[0])
    assert {whole.share(place, 2).cost for place in (0, 1)} == {Cost(None, "given + unknown price")}
    assert charged((Usage(requests=3), None)).share(0, 2).cost is None


def test_a_run_knows_what_the_attempts_with_a_price_cost_and_how_many_had_none() -> None:
    account, attempts = RunAccount(), [*ATTEMPTS, (Usage(requests=1), Cost(None, "unknown price"))]
    Random(1).shuffle(attempts)
    for usage, cost in attempts:
        account.charge(usage, cost)
    assert (account.known_usd, account.unpriced) == (333333333.93333334, 1)
    assert account.cost == Cost(None, "cache + given + simulated + unknown price")
