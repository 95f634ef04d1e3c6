"""The purse: spent + reserved never above the budget, first come first served, and nobody waits for nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline.core.budget import Budget, budget_problems, dollars
from pipeline.core.errors import InvariantError
from pipeline.core.purse import PICOS, Amount, Claim, Purse, PurseStatistics, picos

Asks: TypeAlias = Callable[..., Claim]


def tokens(amount: int) -> Amount:
    return Amount(tokens=amount)


def counting(purses: Sequence[Purse], amount: Amount, arrival: int = 0, *, patient: bool = True) -> Claim:
    return Claim(purses, amount, arrival=arrival, owner=None, wake=lambda: None, patient=patient)


def state(claim: Claim) -> str:
    return "granted" if claim.granted else "refused" if claim.refused else "waits" if claim.waits else "ended"


def test_what_fits_is_reserved_and_what_is_not_spent_comes_back() -> None:
    purse = Purse(Budget(tokens=100))
    claim = counting([purse], tokens(60))
    assert (state(claim), purse.reserved.tokens, purse.spent.tokens) == ("granted", 60, 0)
    claim.spend(tokens(25))
    assert (purse.reserved.tokens, purse.spent.tokens, purse.claims) == (0, 25, {})
    claim.spend(tokens(25))
    claim.end()
    assert (purse.reserved.tokens, purse.spent.tokens) == (0, 25)


def test_what_is_not_known_spends_all_that_was_reserved() -> None:
    purse = Purse(Budget(tokens=100))
    counting([purse], tokens(60)).spend(None)
    assert (purse.reserved.tokens, purse.spent.tokens) == (0, 60)


def test_who_does_not_fit_waits_until_enough_comes_back() -> None:
    purse = Purse(Budget(tokens=100))
    told: list[str] = []
    first = counting([purse], tokens(80))
    second = Claim([purse], tokens(70), arrival=1, owner=None, wake=lambda: told.append("second"))
    assert (state(second), told) == ("waits", [])
    first.spend(tokens(30))
    assert (state(second), told, purse.reserved.tokens) == ("granted", ["second"], 70)


def test_a_small_one_does_not_overtake_a_large_one_that_came_earlier() -> None:
    purse = Purse(Budget(tokens=100))
    first = counting([purse], tokens(80), 0)
    large = counting([purse], tokens(90), 1)
    small = counting([purse], tokens(10), 2)
    earlier = counting([purse], tokens(20), 0)  # a further attempt of a call that came before them
    assert [state(each) for each in (large, small, earlier)] == ["waits", "waits", "granted"]
    earlier.end()
    first.end()
    assert [state(each) for each in (large, small)] == ["granted", "granted"]


def test_who_waits_no_more_lets_the_next_one_by() -> None:
    purse = Purse(Budget(tokens=100))
    first = counting([purse], tokens(80), 0)
    large, small = counting([purse], tokens(90), 1), counting([purse], tokens(10), 2)
    large.end()
    assert [state(each) for each in (first, large, small)] == ["granted", "ended", "granted"]


def test_who_never_fits_is_refused_when_nothing_is_reserved_and_everybody_after_it() -> None:
    purse = Purse(Budget(tokens=100))
    first = counting([purse], tokens(80), 0)
    large, small = counting([purse], tokens(90), 1), counting([purse], tokens(10), 2)
    first.spend(tokens(20))
    assert [state(each) for each in (large, small, counting([purse], tokens(1), 3))] == ["refused"] * 3
    assert (purse.exhausted, purse.spent.tokens, purse.reserved.tokens, purse.waiting) == (True, 20, 0, [])
    large.end()
    assert state(large) == "refused"


def test_one_that_is_in_no_hurry_to_be_granted_refuses_nobody() -> None:
    purse = Purse(Budget(tokens=100))
    assert state(counting([purse], tokens(101), patient=False)) == "ended"
    assert state(counting([purse], tokens(100), patient=False)) == "granted"
    waiting = counting([purse], tokens(1), 1)
    assert (state(counting([purse], tokens(1), 2, patient=False)), state(waiting)) == ("ended", "waits")


def test_two_purses_give_both_or_none() -> None:
    own, shared = Purse(Budget(tokens=100)), Purse(Budget(requests=1))
    amount = Amount(0, 60, 1)
    first = counting([own, shared], amount, 0)
    other = counting([shared], Amount(requests=1), 1)
    second = counting([own, shared], Amount(0, 10, 1), 2)
    assert [state(each) for each in (first, other, second)] == ["granted", "waits", "waits"]
    assert (own.reserved, shared.reserved) == (amount, amount)
    first.end()
    assert [state(each) for each in (other, second)] == ["granted", "waits"]
    assert own.reserved == Amount()
    other.spend(None)
    assert (state(second), second.refused, own.exhausted) == ("refused", shared, False)
    assert (own.waiting, shared.waiting) == ([], [])


def test_who_asks_two_purses_overtakes_nobody_in_either() -> None:
    own, shared = Purse(Budget(tokens=100)), Purse(Budget(tokens=100))
    first, large = counting([shared], tokens(80), 0), counting([shared], tokens(90), 1)
    small = counting([own, shared], tokens(10), 2)
    assert [state(each) for each in (large, small)] == ["waits", "waits"]
    large.end()
    assert [state(each) for each in (first, small)] == ["granted", "granted"]


def test_what_is_not_limited_is_not_asked_for() -> None:
    purse = Purse(Budget(usd=1.0))
    counting([purse], Amount(picos(1.0), 10, 1))
    assert state(counting([purse], Amount(0, 10**9, 1))) == "granted"
    assert len(purse.claims) == 1


def test_what_costs_more_than_was_put_aside_is_not_hidden() -> None:
    purse = Purse(Budget(tokens=100))
    counting([purse], tokens(90)).spend(tokens(120))
    assert str(purse.statistics()) == "120 of 100 tokens spent"
    assert state(counting([purse], tokens(1))) == "refused"


def test_more_cannot_come_back_than_was_taken() -> None:
    with pytest.raises(InvariantError, match="more came back"):
        Purse(Budget(tokens=1)).move(reserved=tokens(-1))


def test_money_is_counted_without_rounding() -> None:
    purse = Purse(Budget(usd=0.3))
    for _ in range(3):
        counting([purse], Amount(picos(0.1))).spend(None)
    assert (purse.spent.picos, purse.statistics().spent.usd) == (3 * PICOS // 10, 0.3)


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (5, "$5.00"),
        (0, "$0.00"),
        (0.5, "$0.50"),
        (0.021, "$0.021"),
        (0.00123456, "$0.0012"),
        (0.000021, "$0.000021"),
        (12345.678, "$12,345.68"),
        (0.99999, "$1.00"),
    ],
)
def test_money_is_shown_with_as_many_places_as_it_needs(usd: float, text: str) -> None:
    assert dollars(usd) == text


def test_a_purse_is_told_in_one_line() -> None:
    budget = Budget(usd=5.0, tokens=2_000_000, requests=10_000)
    now = PurseStatistics(budget, Budget(1.25, 1200, 1), Budget(0.5, 0, 1), 2)
    assert str(budget) == "$5.00 and 2,000,000 tokens and 10,000 requests"
    assert str(now) == (
        "$1.25 of $5.00 spent, $0.50 reserved; 1,200 of 2,000,000 tokens spent; "
        "1 of 10,000 requests spent, 1 request reserved; 2 calls wait for it"
    )


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("5usd", "is '5usd'"),
        (Budget(), "limits nothing"),
        (Budget(usd=-1.0), "usd must be a number of at least 0, got -1.0"),
        (Budget(usd=float("nan")), "usd must be a number of at least 0, got nan"),
        (Budget(tokens=True), "tokens must be a whole number of at least 0, got True"),
        (Budget(requests=1.5), "requests must be a whole number of at least 0, got 1.5"),  # pyright: ignore
    ],
)
def test_what_is_no_budget_is_told(budget: object, message: str) -> None:
    (problem,) = budget_problems(budget)
    assert (problem.option, problem.message) == ("budget", message)
    assert "Budget(usd=5.0)" in str(problem)


@pytest.mark.parametrize("budget", [None, Budget(usd=0), Budget(usd=5), Budget(tokens=0), Budget(requests=3)])
def test_what_is_a_budget_is_taken(budget: Budget | None) -> None:
    assert budget_problems(budget) == []


AMOUNTS = st.builds(Amount, st.integers(0, 30), st.integers(0, 30), st.integers(0, 3))


class PurseMachine(RuleBasedStateMachine):
    """Two runs with a purse each and one that they share, against what the words of the contract say."""

    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.purses = (Purse(Budget(usd=100 / PICOS, tokens=90)), Purse(Budget(requests=8)), Purse(Budget(tokens=200)))
        self.woken: list[Claim] = []
        self.open: list[Claim] = []
        self.spent = [Amount(), Amount(), Amount()]

    @rule(
        target=claims,
        which=st.sampled_from([(0,), (1,), (0, 2), (1, 2), (2,)]),
        amount=AMOUNTS,
        place=st.integers(0, 20),
    )
    def ask(self, which: tuple[int, ...], amount: Amount, place: int) -> Claim:
        made: list[Claim] = []
        claim = Claim(
            [self.purses[number] for number in which],
            amount,
            arrival=place,
            owner=None,
            wake=lambda: self.woken.extend(made),
        )
        made.append(claim)
        self.open.append(claim)
        return claim

    @rule(claim=consumes(claims), share=st.integers(0, 4))
    def end(self, claim: Claim, share: int) -> None:
        self.open.remove(claim)
        if not claim.granted or share == 0:
            claim.end()
            return
        cost = None if share == 4 else Amount(*(each * share // 4 for each in claim.amount))
        for number, purse in enumerate(self.purses):
            if purse in claim.purses:
                now = cost or claim.amount
                self.spent[number] = Amount(*(a + b for a, b in zip(self.spent[number], now, strict=True)))
        claim.spend(cost)

    @invariant()
    def the_law_holds(self) -> None:
        for number, purse in enumerate(self.purses):
            limits = (
                None if purse.budget.usd is None else picos(purse.budget.usd),
                purse.budget.tokens,
                purse.budget.requests,
            )
            held = [claim.amount for claim in self.open if claim.granted and purse in claim.purses]
            reserved = Amount(*(sum(each) for each in zip(*held, strict=True))) if held else Amount()
            assert (purse.spent, purse.reserved) == (self.spent[number], reserved)
            for most, spent, taken in zip(limits, purse.spent, purse.reserved, strict=True):
                assert most is None or spent + taken <= most

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """Whoever waits first everywhere does not fit, and there is something that may come back."""
        waiting = sorted((claim for claim in self.open if claim.waits), key=lambda claim: claim.arrival)
        for purse in self.purses:
            assert {id(each) for each in purse.waiting} == {id(each) for each in waiting if purse in each.purses}
            assert [each.arrival for each in purse.waiting] == sorted(each.arrival for each in purse.waiting)
        for claim in waiting:
            if all(purse.waiting[0] is claim for purse in claim.purses):
                short = [purse for purse in claim.purses if purse.short_of(claim.amount)]
                assert short
                assert all(purse.claims for purse in short)

    @invariant()
    def who_waits_no_more_is_told(self) -> None:
        assert all(not claim.waits for claim in self.woken)


TestPurses = PurseMachine.TestCase


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), max_size=60))
def test_all_but_one_upper_bound_of_a_budget_can_be_used(calls: list[tuple[int, int]]) -> None:
    """Calls of any sizes and costs, all waiting at once: what is left at the end is less than one of them needs."""
    purse = Purse(Budget(tokens=300))
    asked = [counting([purse], tokens(most), place) for place, (most, _) in enumerate(calls)]
    for claim, (most, share) in zip(asked, calls, strict=True):
        if claim.granted:
            claim.spend(tokens(most * share // 100))
    assert not any(claim.waits for claim in asked)
    refused = [claim for claim in asked if claim.refused]
    assert not refused or 300 - purse.spent.tokens < refused[0].amount.tokens
