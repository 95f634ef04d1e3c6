"""Ask several and take the answer that most of them gave: different agents, or one that is asked more than once.

Which answer wins depends on the answers alone, never on which came first: a vote ends early only when nothing that is
still to come could change its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Never, TypeAlias, cast

from pipeline.core.ballot import Count, Key, Votes, key_problems
from pipeline.core.composite import Composite, CompositeRun, member, rejoin
from pipeline.core.decisions import read_decision, whole
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Item
from pipeline.core.joiner import Rules
from pipeline.core.joins import Join, OnTimeout, join_problems
from pipeline.core.members import Members, Verdict
from pipeline.core.names import Fields, suggestion
from pipeline.core.stage import Body, OnError, Stage, as_bodies, as_stage
from pipeline.core.words import Field, Word
from stages.parallel import last_fields

Needed: TypeAlias = Literal["majority", "plurality"] | int
OnTie: TypeAlias = Literal["first", "fail"]

_SAMPLES = "samples"


class Result(NamedTuple):
    """How a vote ends."""

    verdict: Verdict
    winner: Count
    votes: Votes


@dataclass(frozen=True)
class Ballot:
    """How the answers are counted, and what decides. As a function of the members it is the join of the vote."""

    needed: Needed
    key: Key | None
    on_tie: OnTie
    on_timeout: OnTimeout | None

    def __str__(self) -> str:
        return f"{self.needed} votes" if isinstance(self.needed, int) else self.needed

    def __call__(self, members: Members) -> Verdict | None:
        result = self.result(members)
        if result is not None:
            return result.verdict
        return "failed" if members.late and self.on_timeout == "partial" else None

    def result(self, members: Members) -> Result | None:
        """How the vote ends, or None while that is open. Raises `ItemError` when no answer can win."""
        votes, most = Votes.of(members, self.key), len(members.slots)
        needed = self._needed(most)
        failed = sum(end.status in ("failed", "cancelled") for end in members.ended.values())
        winner = votes.decided(needed, silent=failed)
        if winner is not None:  # whatever those that failed would have said
            return Result("ok", winner, votes) if self._final(members, winner) else None
        if votes.out_of_reach(needed):
            raise votes.nobody(needed, most)
        if members.done:
            return Result("partial" if failed else "ok", self._of_tied(votes), votes)
        if members.late and self.on_timeout == "partial":
            return self._of_those_in_time(votes)
        return None

    def _needed(self, of: int) -> int:
        if self.needed == "majority":
            return of // 2 + 1
        return 1 if self.needed == "plurality" else self.needed

    def _final(self, members: Members, winner: Count) -> bool:
        """Whether the value of the vote can be told: it is the answer of the first member that gave the winning one, so
        those declared before it are waited for; a plurality waits for all."""
        if members.late or members.done:
            return True
        before = members.slots[: members.slots.index(winner.slot)]
        return self.needed != "plurality" and all(slot in members.ended for slot in before)

    def _of_those_in_time(self, votes: Votes) -> Result | None:
        """What those say whose answers have come, among themselves."""
        needed = self._needed(votes.answered)
        if votes.most < max(needed, 1):
            return None
        return Result("partial", self._of_tied(votes), votes)

    def _of_tied(self, votes: Votes) -> Count:
        first, *others = votes.tied
        if others and self.on_tie == "fail":
            answers = " and ".join(f"{count.answer[:60]!r}" for count in votes.tied)
            have = "1 vote" if first.votes == 1 else f"{first.votes} votes"
            text = f"{answers} have {have} each; on_tie: first takes the one that was declared first"
            raise ItemError(text, type="Tied")
        return first


@dataclass(frozen=True)
class VoteStage(Composite):
    """Every branch answers, or one body answers several times. The value is the winning answer as the first branch gave
    it that did, in declaration order, and the conversation goes on as that branch left it; `<name>_votes` are the
    answers, as they were compared, with the votes that had come by then."""

    branches: tuple[tuple[str, Stage], ...]
    samples: int | None = None  #: how often the one branch answers
    key: Key | None = None
    needed: Needed = "majority"
    on_tie: OnTie | None = None
    timeout: float | None = None
    on_timeout: OnTimeout | None = None
    on_error: OnError | None = None

    functions: ClassVar[tuple[str, ...]] = ("key",)

    @property
    def ballot(self) -> Ballot:
        return Ballot(self.needed, self.key, self.on_tie or "fail", self.on_timeout)

    @property
    def most(self) -> int:
        """How many answers there are to be."""
        return len(self.branches) if self.samples is None else self.samples

    def bodies(self) -> Mapping[str, Body]:
        if self.samples is None:
            return {label: Body(stage) for label, stage in self.branches}
        names, copies = frozenset({"sample"}), whole(self.samples)
        return {label: Body(stage, names, copies, role="sample") for label, stage in self.branches}

    def rules(self) -> Rules:
        return Rules(Join("custom", 0, self.ballot), self.timeout, self.on_timeout)

    @property
    def leaves_behind(self) -> bool:
        return self.needed != "plurality" or self.timeout is not None

    def failing(self) -> OnError | None:
        return self.on_error

    def produces(self) -> Mapping[str, Fields | None]:
        fields = [last_fields(stage) for _, stage in self.branches]
        known = fields[0] if fields and all(each == fields[0] for each in fields) else None
        return {f"{self.name}_votes": None, self.name: known}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        if not self.branches:
            right = "give at least one, as label=stages, or a body and samples"
            return (Problem(self.name, "branches", "has no branch", right),)
        return tuple(self._problems())

    def _problems(self) -> Iterator[Problem]:
        if self.samples is not None and (type(self.samples) is not int or self.samples < 1):
            yield Problem(self.name, "samples", f"must be a whole number of at least 1, got {self.samples!r}")
            return
        yield from self._needed_problems()
        if self.on_tie not in (None, "first", "fail"):
            yield Problem(self.name, "on_tie", f"must be first or fail, got {self.on_tie!r}")
        yield from key_problems(self.name, "key", self.key)
        yield from join_problems(self.name, Join("custom", 0, self.ballot), self.most, self.timeout, self.on_timeout)

    def _needed_problems(self) -> Iterator[Problem]:
        needed, most = self.needed, self.most
        if needed not in ("majority", "plurality") and (type(needed) is not int or needed < 1):
            text = f"must be majority, plurality or a whole number of at least 1, got {needed!r}"
            yield Problem(self.name, "needed", text, suggestion(str(needed), ["majority", "plurality"]))
        elif isinstance(needed, int) and needed > most:
            text = f"{needed} votes cannot be reached with {most} answers"
            yield Problem(self.name, "needed", text, f"at most {most}")
        elif self.on_tie is not None and needed != "plurality" and (needed == "majority" or needed > most / 2):
            text = "has no effect, because no two answers can both have more than half of the votes"
            yield Problem(self.name, "on_tie", text, "leave it out, or set needed: plurality")

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Group(run.joiner, item)
        if self.samples is None:
            sends = [(label, member(item, group.add(label))) for label, _ in self.branches]
        else:
            label = self.branches[0][0]
            sends = [(label, member(item, group.add(str(n), {"sample": n}))) for n in range(self.samples)]
        group.finish_adding()
        await run.send(group, sends)

    def combine(self, group: Group, joined: Joined) -> Item | None:
        result = self.ballot.result(group.view(late=joined.late))
        if result is None:
            raise ItemError(f"the key of vote {self.name!r} says another thing when it is asked again", type="BadKey")
        won = {slot: item for slot, item in group.finished().items() if slot == result.winner.slot}
        value = won[result.winner.slot].value
        item = rejoin(group, self.name, value, won, complete=joined.verdict == "ok")
        votes = {count.answer: count.votes for count in result.votes.counts}
        return Item(item.value, item.state.add_output(f"{self.name}_votes", votes), item.frame, item.missing)


def vote(
    name: str,
    body: object = None,
    /,
    *unlabelled: Never,
    samples: int | None = None,
    key: Key | str | None = None,
    needed: Needed = "majority",
    on_tie: OnTie | None = None,
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
    on_error: OnError | None = None,
    branches: Mapping[str, object] | None = None,
    **more: object,
) -> VoteStage:
    """Take the answer that most give: `vote("sum", a=agent(...), b=agent(...), c=agent(...))` asks several,
    `vote("sum", agent(...), samples=5)` asks one five times, `sample` in its templates being 0 to 4.

    `needed` is `majority` (more than half of all), `plurality` (the most, once all have answered), or how many votes an
    answer needs at least. What cannot matter any more is cancelled. `key` says what is compared: a plain function of
    the answer, or an expression such as `"{{ answer.label }}"`; without one texts agree that differ in capitals or in
    the space around them only, and other values that are the same JSON. A tie fails the item unless `on_tie="first"`.

    Branches that fail have no vote; the item is partial if theirs could have changed the result. When the `timeout` has
    passed, `on_timeout="partial"` lets those decide that have answered.
    """
    if unlabelled or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        text = "begins with its name, and takes its branches by label"
        raise DefinitionError(Problem(None, "vote", text, 'vote("sum", a=…, b=…), or vote("sum", body, samples=5)'))
    labelled = {**(branches or {}), **more}
    twice = sorted(set(branches or {}) & set(more))
    if twice:
        raise DefinitionError(Problem(name, "branches", f"{', '.join(twice)} given twice"))
    if body is None and samples is not None:
        raise DefinitionError(Problem(name, "samples", "is for one body that answers several times", "give the body"))
    if body is not None and labelled:
        text = "has no effect beside branches, which answer once each"
        raise DefinitionError(Problem(name, "body", text, "give either branches, or a body and samples"))
    if body is not None and samples is None:
        text = "is missing: it says how often the body answers"
        raise DefinitionError(Problem(name, "samples", text, "give it, or branches instead of a body"))
    cases = as_bodies(labelled) if body is None else ((_SAMPLES, as_stage(body)),)
    return VoteStage(name, cases, samples, read_decision(key), needed, on_tie, timeout, on_timeout, on_error)


def _from_file(name: str, *, body: Stage | None = None, needed: object = "majority", **values: object) -> VoteStage:
    return vote(name, body, needed=cast("Needed", needed), **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "vote",
    {
        "branches": Field("bodies", help="label to list of stages; every one answers"),
        "body": Field("body", help="stages that answer several times, instead of branches"),
        "samples": Field("count", help="how often the body answers; `sample` counts from 0"),
        "key": Field("decision", help="what is compared of an `answer`, or {call: …}", sees=("answer",)),
        "needed": Field("any", help="majority, plurality, or the votes that an answer needs"),
        "on_tie": Field("choice", choices=("first", "fail"), help="when several have the most votes"),
        "timeout": Field("duration", help="from the first visit of the item in a branch"),
        "on_timeout": Field("choice", choices=("fail", "partial"), help="whether those may decide that have answered"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when no answer wins"),
    },
    _from_file,
    "asks several and takes the answer that most of them give",
    outputs=("votes",),
)
