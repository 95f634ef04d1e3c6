"""Again until it is good enough: the evaluator-optimizer.

A loop has one body, whose last part is made here and says whether the round was good enough. What is not goes back into
the body by the feedback edge, as a member of the same group: one item in, one item or one outcome out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Never, TypeAlias

from pipeline.core.agent import AGENT_CONCURRENCY
from pipeline.core.arity import accepts
from pipeline.core.composite import Composite, CompositeRun, rejoin
from pipeline.core.decisions import decision_problems, read_decision, whole
from pipeline.core.errors import DefinitionError, Failure, ItemError, Problem
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.leaf import LeafStage, Plain, Process, Visited
from pipeline.core.names import Fields
from pipeline.core.replay import once, once_now
from pipeline.core.stage import Body, Chain, OnError, Stage, Template, as_stage
from pipeline.core.templates import Expression
from pipeline.core.threads import is_blocking
from pipeline.core.visit import Visit, template_names
from pipeline.core.words import Field, Word
from stages.parallel import last_fields

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

Until: TypeAlias = Callable[..., object] | Expression
OnExhausted: TypeAlias = Literal["last", "fail"]

_EXHAUSTED = "LoopExhausted"


@dataclass(frozen=True)
class UntilStage(LeafStage):
    """Writes down whether the round was good enough, and sends the item on as it came."""

    until: Until = bool
    owner: str = ""  #: the loop, whose name stands in messages

    functions: ClassVar[tuple[str, ...]] = ("until",)

    @property
    def key(self) -> str:
        """Where the answer stands among the outputs of the body, which nobody outside sees. No stage is called so."""
        return self.name

    def templates(self) -> Mapping[str, Template]:
        return {"until": self.until} if isinstance(self.until, Expression) else {}

    def produces(self) -> Mapping[str, Fields | None]:
        return {}

    def plain(self) -> Plain | None:
        until = self.until
        if isinstance(until, Expression):
            return lambda item: self._answered(item, until.evaluate(template_names(item)))
        if accepts(until, 2) or not is_blocking(until):
            return None
        return lambda item: self._answered(item, once_now("until", item, self.name, lambda: until(item.value)))

    def bind(self, scope: Scope) -> Process:
        plain = self.plain()
        if plain is not None:
            return lambda item, worker: plain(item)
        until = self.until
        if isinstance(until, Expression):  # expressions are always plain
            raise TypeError("an expression has a plain form")
        with_visit = accepts(until, 2)

        async def process(item: Item, worker: Worker) -> Visited:
            args = (item.value, Visit(worker, item)) if with_visit else (item.value,)
            return self._answered(item, await once("until", item, self.name, lambda: until(*args)))

        return process

    def _answered(self, item: Item, answer: object) -> Item:
        if type(answer) is not bool:
            raise ItemError(f"until of {self.owner!r} has to say true or false, got {answer!r:.60}", type="NotABool")
        return Item(item.value, item.state.add_output(self.key, answer), item.frame, item.missing)


class Rounds(Group):
    """One item in a loop: a group whose one member is its current round. What can change beyond a group's: `round`."""

    __slots__ = ("round", "run", "stage")

    def __init__(self, stage: LoopStage, run: CompositeRun, item: Item) -> None:
        super().__init__(run.joiner, item)
        self.stage = stage
        self.run = run
        self.round = 0

    def next_round(self, before: Item) -> Item:
        """The item that goes into the body next, given what entered, or what the last round made of it."""
        self.members.clear()
        self.round += 1
        frame = self.add(str(self.round), {"round": self.round})
        return Item(before.value, before.state, frame, self.item.missing)

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        item = outcome.item
        done = item is None or outcome.status not in ("ok", "partial") or item.state.outputs[self.stage.until_key]
        if self.closed or item is None or done:
            super().resolved(frame, outcome)
            return
        self.count(frame, outcome)
        error = self._exhausted()
        if error is None:
            self.run.feedback.put("body", self.next_round(item), self)
        elif error.type == _EXHAUSTED and self.stage.on_exhausted == "last":
            super().resolved(frame, outcome)
        else:
            self.outcomes[frame.slot] = outcome  # so that the record keeps what the last round made
            self.fail(Failure.of(error, self.stage.name))

    def _exhausted(self) -> ItemError | None:
        """Why there can be no other round."""
        if self.round >= self.stage.max_rounds:
            return self._not_good_enough(f"max_rounds is {self.stage.max_rounds}")
        spent, limit = self.used.cost, self.stage.max_cost
        if limit is None or spent is None:
            return None
        if spent.usd is None:
            text = f"max_cost {limit:g} USD cannot be kept: the price of a model that was asked is not known"
            return ItemError(text, type="UnknownPrice")
        if spent.usd < limit:
            return None
        return self._not_good_enough(f"which cost {spent.usd:.6g} USD, max_cost is {limit:g} USD")

    def _not_good_enough(self, reason: str) -> ItemError:
        rounds = "1 round" if self.round == 1 else f"{self.round} rounds"
        return ItemError(f"not good enough after {rounds}, {reason}", type=_EXHAUSTED)


@dataclass(frozen=True)
class LoopStage(Composite):
    """Sends an item through its body until `until` says true. The value is the last round's; `<name>_rounds` tells how
    many there were, and `<name>_exhausted` whether they were used up."""

    body: Stage
    until: Until
    max_rounds: int
    max_cost: float | None = None
    on_exhausted: OnExhausted = "last"
    on_error: OnError | None = None

    @property
    def until_key(self) -> str:
        return f"{self.name}.until"

    @property
    def feeds_back(self) -> bool:
        return True

    @property
    def thins(self) -> bool:
        return True

    def _slots_of_until(self) -> int:
        """A plain function never waits; one that may, because it asks somebody, is asked for several items at once."""
        return 1 if UntilStage("", until=self.until).plain() is not None else AGENT_CONCURRENCY

    def bodies(self) -> Mapping[str, Body]:
        until = UntilStage(self.until_key, self._slots_of_until(), until=self.until, owner=self.name)
        names = frozenset({"round", *self.body.produces()})
        return {"body": Body(Chain.of(self.body, until), names, total=whole(self.max_rounds), role="round")}

    def failing(self) -> OnError | None:
        return self.on_error

    def produces(self) -> Mapping[str, Fields | None]:
        return {f"{self.name}_rounds": {}, f"{self.name}_exhausted": {}, self.name: last_fields(self.body)}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found = [*decision_problems(self.name, "until", self.until, given="the output of a round", visit=True)]
        if type(self.max_rounds) is not int or self.max_rounds < 1:
            text = f"must be a whole number of at least 1, got {self.max_rounds!r}"
            found.append(Problem(self.name, "max_rounds", text))
        if self.max_cost is not None and not (type(self.max_cost) in (int, float) and 0 < self.max_cost < math.inf):
            found.append(Problem(self.name, "max_cost", f"must be above 0 US dollars, got {self.max_cost!r}"))
        if self.on_exhausted not in ("last", "fail"):
            found.append(Problem(self.name, "on_exhausted", f"must be last or fail, got {self.on_exhausted!r}"))
        return tuple(found)

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Rounds(self, run, item)
        first = group.next_round(item)
        group.finish_adding()
        if run.feedback.pending:  # those that are under way go before it
            run.feedback.put("body", first, group)
        else:
            await run.send(group, [("body", first)])

    def gather(self, items: Mapping[str, Item]) -> object:
        """The output of the round that was finished."""
        return next(iter(items.values())).value

    def combine(self, group: Group, joined: Joined) -> Item | None:
        items = group.finished()
        for slot, item in items.items():
            value, good = item.value, bool(item.state.outputs[self.until_key])
            group.item = _told(group.item, {f"{self.name}_rounds": int(slot), f"{self.name}_exhausted": not good})
            return rejoin(group, self.name, value, items, complete=False)
        return None  # the round was skipped


def _told(item: Item, outputs: Mapping[str, object]) -> Item:
    state = item.state
    for name, value in outputs.items():
        state = state.add_output(name, value)
    return Item(item.value, state, item.frame, item.missing)


def loop(
    body: object,
    /,
    *misplaced: Never,
    until: Callable[..., object] | Expression | str,
    max_rounds: int,
    name: str = "loop",
    max_cost: float | None = None,
    on_exhausted: OnExhausted = "last",
    on_error: OnError | None = None,
) -> LoopStage:
    """Repeat `body` until it is good enough: `loop(writer | critic, until="{{ critic.score >= 8 }}", max_rounds=4)`.

    `until` is a function of the body's output (one parameter more gives the visit; it may be async) or an expression;
    it has to say true or false. Each round gets what the round before put out; templates in the body see `round`, from
    1, and the body's own outputs of the round before: from round 2 on, so they stand inside `{% if round > 1 %}`.

    After `max_rounds` rounds, or when they have cost `max_cost` US dollars or more, the last one's output goes on and
    `<name>_exhausted` is true; with `on_exhausted="fail"` the item fails. What a round did not wait for, such as the
    losers of a race, does not count for `max_cost`.
    """
    if misplaced or isinstance(body, str):
        text = "begins with its body, and takes its name as name="
        raise DefinitionError(Problem(None, "loop", text, 'loop(body, until=…, max_rounds=…, name="polish")'))
    return LoopStage(name, as_stage(body), read_decision(until), max_rounds, max_cost, on_exhausted, on_error)


def _from_file(name: str, *, body: Stage, **values: object) -> LoopStage:
    return loop(body, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "loop",
    {
        "body": Field("body", required=True, help="stages of one round"),
        "until": Field("decision", required=True, help="an expression that says true or false, or {call: …}"),
        "max_rounds": Field("count", required=True, help="most rounds an item may take"),
        "max_cost": Field("money", help="no further round once those of an item have cost this much"),
        "on_exhausted": Field("choice", choices=("last", "fail"), help="what goes on when the rounds are used up"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when a round fails"),
    },
    _from_file,
    "repeats a body until it is good enough",
    outputs=("rounds", "exhausted"),
)
