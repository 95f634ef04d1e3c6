"""Counting answers: which one has how many votes, and whether that can still change.

Two members agree when their answers have the same key. By default texts agree that differ in capitals or in the space
around them only, and other values that are the same JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from pipeline.core.codec import canonical
from pipeline.core.decisions import decision_problems
from pipeline.core.errors import ItemError, Problem
from pipeline.core.members import Members, Verdict
from pipeline.core.names import suggestion
from pipeline.core.templates import Expression

#: What is compared of an answer: a function of it, or an expression over the name `answer`.
Key: TypeAlias = Callable[[object], object] | Expression


class Count(NamedTuple):
    """The votes of one answer."""

    answer: str  #: its key as text
    votes: int
    slot: str  #: the first member, in declaration order, that gave it


@dataclass(frozen=True, slots=True)
class Votes:
    """The answers so far: those with the most votes first, those with equally many in declaration order."""

    counts: tuple[Count, ...]
    open: int  #: members that may still answer
    reasons: tuple[str, ...] = ()  #: why others failed

    @classmethod
    def of(cls, members: Members, key: Key | None = None) -> Votes:
        """Count the answers in `members`. Raises what `key` raises, and `ItemError` for what has no JSON form."""
        givers: dict[str, list[str]] = {}
        for slot, value in members.values.items():
            givers.setdefault(answer_key(value, key), []).append(slot)
        counts = [Count(answer, len(slots), slots[0]) for answer, slots in givers.items()]
        reasons = tuple(f"{slot}: {member.reason}" for slot, member in members.ended.items() if member.reason)
        return cls(tuple(sorted(counts, key=lambda count: -count.votes)), members.open, reasons)

    @property
    def most(self) -> int:
        return max((count.votes for count in self.counts), default=0)

    @property
    def answered(self) -> int:
        return sum(count.votes for count in self.counts)

    @property
    def tied(self) -> tuple[Count, ...]:
        """The answers that have the most votes: one, unless there is a tie."""
        return tuple(count for count in self.counts if count.votes == self.most)

    def decided(self, needed: int, *, silent: int = 0) -> Count | None:
        """The answer that has the votes it needs and that no other can catch up with, be it by those members that may
        still answer or by `silent` more."""
        second = max((count.votes for count in self.counts[1:]), default=0)
        if self.most < needed or self.most <= second + self.open + silent:
            return None
        return next(iter(self.counts), None)

    def out_of_reach(self, needed: int) -> bool:
        """Whether no answer can have `needed` votes any more."""
        return self.most + self.open < needed

    def nobody(self, needed: int, of: int) -> ItemError:
        """The error of a vote that no answer can win."""
        got = ", ".join(f"{count.answer:.40}: {count.votes}" for count in self.counts[:5]) or "none was given"
        text = f"no answer can have {needed} of {of} votes: {got}"
        return ItemError("; ".join([text, *self.reasons]), type="NoMajority")


def answer_key(value: object, key: Key | None = None) -> str:
    """What is compared of an answer, as text. Raises what `key` raises, and `ItemError` for what has no JSON form."""
    if key is None:
        return value.strip().casefold() if isinstance(value, str) else canonical(value).decode()
    compared = key.evaluate({"answer": value}) if isinstance(key, Expression) else key(value)
    return compared if isinstance(compared, str) else canonical(compared).decode()


def key_problems(stage: str, option: str, key: Key | None) -> Iterator[Problem]:
    """What is wrong with a key of answers."""
    if isinstance(key, Expression):
        for name in sorted(key.names - {"answer"}):
            yield Problem(stage, option, f"uses {name!r}; available here: answer", suggestion(name, ["answer"]))
    elif key is not None:
        yield from decision_problems(stage, option, key, given="an answer", at_once=True)


@dataclass(frozen=True, slots=True)
class Majority:
    """Decides as soon as one answer has more than half of all members, or none can have that any more."""

    key: Key | None = None

    def __str__(self) -> str:
        return "majority"

    def __call__(self, members: Members) -> Verdict | None:
        if not members.complete:
            return None
        votes, most = Votes.of(members, self.key), len(members.slots)
        needed = most // 2 + 1
        if votes.decided(needed):
            return "ok"
        if votes.out_of_reach(needed):
            raise votes.nobody(needed, most)
        return None
