"""Join rules, row by row: what a group decides from how its members stand."""

from __future__ import annotations

import pytest

from pipeline.core.joins import Join, Tally, decide, decide_late, first, quorum


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
    with pytest.raises(ValueError, match="join 'quorum' needs a number of at least 1, got 0"):
        quorum(0)
    with pytest.raises(ValueError, match="join 'all' takes no number, got 2"):
        Join("all", 2)
