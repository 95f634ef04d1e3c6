"""Seeded bugs fit the tree and name tests that exist, and a few are put in; `check.py` puts in all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.seeded.check import TREE, Bug, OutOfDate, bugs, hunks_of, survives, verdict

BUGS = {bug.name: bug for bug in bugs()}

#: one of credits, groups, ends, slots and clocks each, and two of the journal
FEW = (
    "credit_returned_early",
    "skip_not_told",
    "loop_end_lost",
    "lent_slot_not_regained",
    "timer_not_rearmed",
    "intent_not_waited_for",
    "stored_answer_of_another_request",
)


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 20
    assert len({bug.broken for bug in BUGS.values()}) == len(BUGS)


@pytest.mark.parametrize("name", BUGS)
def test_every_bug_fits_the_tree_and_names_tests_that_exist(name: str, tmp_path: Path) -> None:
    bug = BUGS[name]
    for hunk in bug.hunks:
        copied = tmp_path / hunk.file
        if not copied.exists():
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_text((TREE / hunk.file).read_text())
    bug.apply(tmp_path)
    for file in {hunk.file for hunk in bug.hunks}:
        compile((tmp_path / file).read_text(), file, "exec")
    for test in bug.tests:
        file, _, function = test.partition("::")
        text = (TREE / file).read_text()
        assert not function or f"def {function.partition('[')[0]}(" in text


@pytest.mark.parametrize("name", FEW)
def test_a_bug_is_noticed(name: str) -> None:
    assert survives(BUGS[name]) is None


def test_a_harmless_change_survives_and_is_told() -> None:
    harmless = Bug("harmless", "nothing", BUGS["skip_not_told"].tests, ())
    assert "2 passed" in (survives(harmless) or "")


def test_a_patch_that_does_not_fit_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("same\nsame\n")
    lines = ["--- a/a.py\n", "+++ b/a.py\n", "@@ -1,1 +1,1 @@\n", "-same\n", "+other\n"]
    (hunk,) = hunks_of(lines)
    with pytest.raises(OutOfDate, match=r"a\.py has 2 times, not once"):
        hunk.apply(tmp_path)


@pytest.mark.parametrize(
    ("code", "output", "noticed"),
    [
        (1, "F\nfailed by: Stalled\n", True),
        (1, "F\nfailed by: ValueError AssertionError\n", True),
        (1, "F\nfailed by: ValueError\n", False),
        (0, "", False),
        (4, "", False),
        (-1, "failed by: AssertionError", False),
    ],
)
def test_only_an_assertion_an_invariant_or_a_stall_has_noticed_a_bug(code: int, output: str, noticed: bool) -> None:
    assert (verdict(code, output) is not None) is noticed
