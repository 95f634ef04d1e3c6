"""Counting answers: what agrees, who leads, and whether that can still change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.core.ballot import Count, Votes, answer_key
from pipeline.core.errors import ItemError
from pipeline.core.members import Ended, Members
from pipeline.core.templates import Expression


@dataclass(frozen=True)
class Answer:
    label: str
    why: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "  paris\n"),
        ("STRASSE", "straße"),
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (1, "1"),
        (True, "true"),
        (Answer("yes", "x"), {"why": "x", "label": "yes"}),
    ],
)
def test_answers_that_agree(one: object, other: object) -> None:
    assert answer_key(one) == answer_key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "ab"), (1, 2), ([1, 2], [2, 1]), (1, True), ("one", "1"), (None, 0)]
)
def test_answers_that_do_not(one: object, other: object) -> None:
    assert answer_key(one) != answer_key(other)


@pytest.mark.parametrize(
    ("key", "answer", "compared"),
    [
        (len, "abc", "3"),
        (lambda answer: answer["n"], {"n": [1, 2]}, "[1,2]"),
        (Expression("{{ answer.label }}"), {"label": "Yes ", "why": "so"}, "Yes "),
        (Expression("{{ answer.n + 1 }}"), {"n": 1}, "2"),
    ],
)
def test_a_key_says_what_is_compared(key: Any, answer: object, compared: str) -> None:
    assert answer_key(answer, key) == compared


def test_what_has_no_json_form_cannot_be_compared() -> None:
    with pytest.raises(ItemError, match="set"):
        answer_key({1, 2})


def votes(*answers: str | None, waiting: int = 0, failing: int = 0) -> Votes:
    """None is a member that was skipped."""
    ended = [Ended("skipped") if answer is None else Ended("ok", answer) for answer in answers]
    ended += [Ended("failed", None, "broken")] * failing
    slots = tuple(f"s{place}" for place in range(len(ended) + waiting))
    return Votes.of(Members(slots, dict(zip(slots, ended, strict=False))))


def test_answers_are_counted_with_their_first_giver_those_with_the_most_votes_first() -> None:
    counted = votes("b", "a", None, "A", "c", failing=1, waiting=2)
    assert counted.counts == (Count("a", 2, "s1"), Count("b", 1, "s0"), Count("c", 1, "s4"))
    assert (counted.open, counted.most, counted.answered, counted.reasons) == (2, 2, 4, ("s5: broken",))
    assert counted.tied == (Count("a", 2, "s1"),)
    assert votes("b", "a").tied == (Count("b", 1, "s0"), Count("a", 1, "s1"))


@pytest.mark.parametrize(
    ("counted", "needed", "silent", "slot"),
    [
        (votes("a"), 1, 0, "s0"),
        (votes("a"), 2, 0, None),
        (votes("a", "a", waiting=1), 2, 0, "s0"),
        (votes("a", "a", waiting=2), 2, 0, None),
        (votes("b", "a", "a", waiting=0), 1, 0, "s1"),
        (votes("b", "a", "a", waiting=1), 1, 0, None),
        (votes("b", "a", "a", "a", waiting=1), 1, 0, "s1"),
        (votes("b", "a", "a", "a", waiting=1), 1, 1, None),
        (votes("b", "a"), 1, 0, None),
        (votes(), 0, 0, None),
    ],
)
def test_an_answer_has_won_when_no_other_can_catch_up(
    counted: Votes, needed: int, silent: int, slot: str | None
) -> None:
    winner = counted.decided(needed, silent=silent)
    assert (winner.slot if winner else None) == slot


def test_votes_are_out_of_reach_when_those_that_are_open_would_not_do() -> None:
    assert votes("a", "b", waiting=1).out_of_reach(3)
    assert not votes("a", "b", waiting=2).out_of_reach(3)


def test_a_lost_vote_says_what_was_answered_and_why_others_failed() -> None:
    error = votes("yes", "no", failing=1).nobody(2, of=3)
    assert (error.type, error.message) == ("NoMajority", "no answer can have 2 of 3 votes: yes: 1, no: 1; s2: broken")
