"""Join rules, row by row: what a group decides from how its members stand."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.ballot import Majority
from pipeline.core.errors import InvariantError, ItemError
from pipeline.core.joins import Join, Tally, ask, decide, decide_late, first, majority, quorum
from pipeline.core.members import Ended, Members


def tally(ok: int = 0, failed: int = 0, skipped: int = 0, waiting: int = 0, *, complete: bool = True) -> Tally:
    return Tally(ok, failed, skipped, waiting, complete)


ALL = Join()


@pytest.mark.parametrize(
    ("join", "now", "verdict"),
    [
        (ALL, tally(waiting=2), None),
        (ALL, tally(ok=1, waiting=1), None),
        (ALL, tally(ok=2), "ok"),
        (ALL, tally(ok=1, skipped=1), "ok"),
        (ALL, tally(skipped=2), "ok"),
        (ALL, tally(), "ok"),
        (ALL, tally(failed=1, waiting=5), "failed"),
        (ALL, tally(ok=2, complete=False), None),
        (ALL, tally(failed=1, complete=False), "failed"),
        (first(1), tally(waiting=2), None),
        (first(1), tally(ok=1, waiting=2), "ok"),
        (first(1), tally(ok=1, complete=False), "ok"),
        (first(1), tally(failed=1, waiting=1), None),
        (first(1), tally(failed=2), "failed"),
        (first(1), tally(skipped=2), "failed"),
        (first(1), tally(failed=2, complete=False), None),
        (first(2), tally(ok=1, waiting=1), None),
        (first(2), tally(ok=2, waiting=1), "ok"),
        (first(2), tally(ok=1, failed=1), "failed"),
        (first(2), tally(ok=1, skipped=1), "failed"),
        (quorum(2), tally(ok=2, waiting=1), None),
        (quorum(2), tally(ok=3), "ok"),
        (quorum(2), tally(ok=2, failed=1), "partial"),
        (quorum(2), tally(ok=2, skipped=1), "ok"),
        (quorum(2), tally(ok=1, failed=1, waiting=1), None),
        (quorum(2), tally(failed=2, waiting=1), "failed"),
        (quorum(2), tally(ok=1), "failed"),
        (quorum(2), tally(failed=9, complete=False), None),
        (quorum(2), tally(ok=2, complete=False), None),
    ],
)
def test_a_group_is_decided_as_soon_as_it_cannot_go_either_way(join: Join, now: Tally, verdict: str | None) -> None:
    assert decide(join, now) == verdict


@pytest.mark.parametrize(
    ("join", "now", "on_timeout", "verdict"),
    [
        (ALL, tally(ok=1, waiting=1), None, "failed"),
        (ALL, tally(ok=1, waiting=1), "partial", "partial"),
        (ALL, tally(waiting=2), "partial", "failed"),
        (first(2), tally(ok=1, waiting=1), None, "failed"),
        (first(2), tally(ok=1, waiting=1), "partial", "partial"),
        (quorum(2), tally(ok=2, waiting=1), None, "partial"),
        (quorum(2), tally(ok=1, waiting=1), None, "failed"),
        (quorum(2), tally(ok=1, waiting=1), "partial", "failed"),
        (quorum(2), tally(ok=2, waiting=1), "fail", "failed"),
    ],
)
def test_a_group_whose_time_is_up_makes_do_with_a_part_only_where_it_may(
    join: Join, now: Tally, on_timeout: str | None, verdict: str
) -> None:
    assert decide_late(join, now, on_timeout) == verdict  # type: ignore[arg-type]


def test_words_stand_for_joins() -> None:
    assert Join.of("all") == Join()
    assert Join.of("any") == first(1)
    assert Join.of(quorum(3)) == quorum(3)
    assert [str(join) for join in (Join(), first(2), quorum(3))] == ["all", "first(2)", "quorum(3)"]


def test_joins_that_cannot_be_are_refused_with_what_was_given() -> None:
    with pytest.raises(
        ValueError, match=r"must be 'all', 'any', 'majority', first\(k\), quorum\(k\) or a function, got 'most'"
    ):
        Join.of("most")
    for wrong in (0, -1, "2", True, 1.5):
        with pytest.raises(ValueError, match=f"join 'quorum' needs a number of at least 1, got {wrong!r}"):
            quorum(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="join 'all' takes no number, got 2"):
        Join("all", 2)


def members(*statuses: str, waiting: int = 0, complete: bool = True, late: bool = False) -> Members:
    """Members `0`, `1`, … that have ended so, each with its slot as output, and `waiting` more."""
    slots = tuple(str(place) for place in range(len(statuses) + waiting))
    ended = {slot: Ended(status, slot) for slot, status in zip(slots, statuses, strict=False)}  # type: ignore[arg-type]
    return Members(slots, ended, complete, late)


def two_of_each(seen: Members) -> str | None:
    """Any function of the members is a join."""
    return "ok" if len(seen.values) == 2 else "failed" if seen.late else None


def test_members_say_what_is_open_and_what_came_out() -> None:
    seen = members("ok", "failed", "partial", "skipped", waiting=2)
    assert (seen.slots, seen.open, seen.done) == (("0", "1", "2", "3", "4", "5"), 2, False)
    assert seen.values == {"0": "0", "2": "2"}
    assert members("ok").done
    assert not members("ok", complete=False).done


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (members("ok", waiting=2), None),
        (members("ok", "partial", waiting=2), "ok"),
        (members("ok", waiting=2, late=True), "failed"),
    ],
)
def test_a_join_can_be_a_function_of_the_members_so_far(seen: Members, verdict: str | None) -> None:
    assert ask(Join.of(two_of_each), "p", seen) == verdict  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("function", "seen", "message"),
    [
        (
            lambda seen: "good",
            members("ok", waiting=1),
            (
                "join custom(<lambda>) of 'p' returned 'good'; "
                "it has to return 'ok', 'partial', 'failed', or None for not yet"
            ),
        ),
        (
            lambda seen: True,
            members("ok", waiting=1),
            (
                "join custom(<lambda>) of 'p' returned True; "
                "it has to return 'ok', 'partial', 'failed', or None for not yet"
            ),
        ),
        (lambda seen: 1 / 0, members("ok"), "join custom(<lambda>) of 'p' raised ZeroDivisionError: division by zero"),
        (
            two_of_each,
            members("ok", "failed", "skipped"),
            "join custom(two_of_each) of 'p': the join function did not decide, though all 3 members have ended",
        ),
    ],
)
def test_a_function_that_is_no_use_as_a_join_is_told_with_the_composite(
    function: Any, seen: Members, message: str
) -> None:
    with pytest.raises(ItemError) as caught:
        ask(Join.of(function), "p", seen)
    assert (caught.value.message, caught.value.type) == (message, "JoinError")


def test_a_join_function_can_give_a_reason_of_its_own() -> None:
    def refuses(seen: Members) -> Any:
        raise ItemError("too close to call", type="Close")

    with pytest.raises(ItemError, match=r"^too close to call$"):
        ask(Join.of(refuses), "p", members("ok"))


def test_a_broken_law_is_no_failure_of_a_join() -> None:
    def breaks(seen: Members) -> Any:
        raise InvariantError("law")

    with pytest.raises(InvariantError):
        ask(Join.of(breaks), "p", members("ok"))


def test_joins_by_functions_are_values() -> None:
    assert Join.of(two_of_each) == Join.of(two_of_each)  # type: ignore[arg-type]
    assert Join.of(two_of_each) != Join.of(Majority())  # type: ignore[arg-type]
    assert str(Join.of(two_of_each)) == "custom(two_of_each)"  # type: ignore[arg-type]
    assert Join.of("majority") == majority() == Join.of(Majority())
    assert majority(key="{{ answer.label }}") == majority(key="{{ answer.label }}") != majority()
    assert str(majority(len)) == "majority"
    assert "two_of_each" in repr(Join.of(two_of_each))  # type: ignore[arg-type]


def test_a_join_function_has_to_be_plain() -> None:
    async def waits(seen: Members) -> Any: ...

    class Waits:
        async def __call__(self, seen: Members) -> Any: ...

    for function in (waits, Waits()):
        with pytest.raises(ValueError, match="a join is decided at once, by a plain function"):
            Join.of(function)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="join 'custom' has a function and no other join has one, got 'custom'"):
        Join("custom")
    with pytest.raises(ValueError, match="join 'custom' has a function and no other join has one, got 'all'"):
        Join("all", 0, two_of_each)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a join is decided by a function, got 3"):
        Join("custom", 0, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answers", "waiting", "verdict"),
    [
        (["a"], 2, None),
        (["a", "a"], 1, "ok"),
        (["a", "a"], 2, None),
        (["a", "a", "a"], 2, "ok"),
        (["a", "b"], 1, None),
        ([" A\n", "a"], 1, "ok"),
        ([{"x": 1, "y": 2}, {"y": 2, "x": 1}], 1, "ok"),
        ([], 0, "none was given"),
        (["a", "b"], 0, "a: 1, b: 1"),
        (["a", "b", "b"], 1, None),
        (["a", "a", "b", "b"], 0, "a: 2, b: 2"),
        (["a", "b", "c"], 1, "a: 1, b: 1, c: 1"),
    ],
)
def test_a_majority_is_more_than_half_of_all(answers: list[object], waiting: int, verdict: str | None) -> None:
    slots = tuple(str(place) for place in range(len(answers) + waiting))
    seen = Members(slots, {slot: Ended("ok", answer) for slot, answer in zip(slots, answers, strict=False)})
    if verdict in (None, "ok"):
        assert ask(majority(), "p", seen) == verdict
    else:
        with pytest.raises(ItemError) as caught:
            ask(majority(), "p", seen)
        assert caught.value.type == "NoMajority"
        assert caught.value.message == f"no answer can have {len(slots) // 2 + 1} of {len(slots)} votes: {verdict}"


def test_a_majority_waits_until_it_is_known_of_how_many() -> None:
    assert ask(majority(), "p", members("ok", complete=False)) is None
