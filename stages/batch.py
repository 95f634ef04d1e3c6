"""Several items at once: for what is cheaper by the dozen, such as one call that judges twenty answers.

With a body it is a bracket: the items go in as one list, the body gives one result each, and every item goes on under
its own lineage. Without one it collapses them: the list goes on as one item, and leaves one record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Never, TypeAlias

from pipeline.core.composite import Composite, CompositeRun
from pipeline.core.decisions import decision_problems, read_decision
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.stage import Body, OnError, Stage, Standing, Template, as_stage
from pipeline.core.templates import Expression
from pipeline.core.time_limit import is_duration
from pipeline.core.words import Field, Word
from stages.batching import BODY, BatchRun
from stages.partition import Key

if TYPE_CHECKING:
    from pipeline.core.scope import Scope

Weight: TypeAlias = Callable[[object], object] | Expression


@dataclass(frozen=True)
class BatchStage(Composite):
    """Gathers items until they are `size`, or weigh that much, or the first of them has waited `within` seconds."""

    body: Stage | None
    size: int
    within: float | None = 1.0
    weight: Weight | None = None
    key: Key | None = None
    on_error: OnError | None = None

    functions: ClassVar[tuple[str, ...]] = ("weight", "key")

    @property
    def feeds_back(self) -> bool:
        return self.body is not None

    @property
    def keeps(self) -> bool:
        return self.body is None

    @property
    def forgets(self) -> bool:
        return self.body is None

    @property
    def thins(self) -> bool:
        return True

    @property
    def against_submit(self) -> str | None:
        if self.body is None:
            return f"{self.name!r} makes one record of several"
        return f"{self.name!r} has no `within`, so it may wait for ever for more" if self.within is None else None

    def bodies(self) -> Mapping[str, Body]:
        return {} if self.body is None else {BODY: Body(self.body, frozenset({"parts"}), alone=True, role="batch")}

    def templates(self) -> Mapping[str, Template]:
        options = {"weight": self.weight, "key": self.key}
        return {option: value for option, value in options.items() if isinstance(value, Expression)}

    def failing(self) -> OnError | None:
        return self.on_error

    def in_run(self, scope: Scope) -> CompositeRun:
        return BatchRun(self, scope)

    # -- what is wrong with it ----------------------------------------------------------------------------------

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found: list[Problem] = []
        if type(self.size) is not int or self.size < 1:
            found.append(Problem(self.name, "size", f"must be a whole number of at least 1, got {self.size!r}"))
        if self.within is not None and not is_duration(self.within):
            found.append(Problem(self.name, "within", f"must be a number of seconds above 0, got {self.within!r}"))
        for option, decision in (("weight", self.weight), ("key", self.key)):
            if decision is not None:
                found += decision_problems(self.name, option, decision)
        if in_body and self.body is None:
            text = "a batch without a body can stand on the top-level chain only"
            found.append(Problem(self.name, None, text, "give it a body, which returns one result for each item"))
        return tuple(found)

    def stalls(self, standing: Standing) -> Iterator[Problem]:
        if self.within is None and (reason := self._endless(standing)) is not None:
            text = f"without a time it could wait for ever: {reason}"
            yield Problem(self.name, "within", text, "say how long an item may wait at most")

    def _endless(self, standing: Standing) -> str | None:
        """Why a batch that waits until it is full might never be."""
        before = next((stage.name for stage in standing.before if stage.thins), None)
        if self.key is not None:
            return "with `key` there can be more batches that are not full than the window has items"
        if self.weight is not None:
            return "with `weight` it may take more items than the window has"
        if standing.in_body:
            return "the body of another stage may hold the items that it waits for"
        if before is not None:
            return f"{before!r} before it may keep or drop the items that it waits for"
        if standing.ordered:
            return "with ordered results the window may be full of records that wait for their turn"
        if self.size > standing.max_in_flight:
            return f"size {self.size} is more than max_in_flight {standing.max_in_flight} lets in"
        return None

    def doubts(self, standing: Standing) -> Iterator[Problem]:
        most = standing.most
        if self.within is not None and self.weight is None and type(self.size) is int and self.size > most:
            text = f"{self.size} is never reached: at most {most} items are alive, so every batch waits for `within`"
            yield Problem(self.name, "size", text, f"lower it to {most}, or raise max_in_flight")


def batch(
    body: object | None = None,
    /,
    *misplaced: Never,
    size: int,
    name: str = "batch",
    within: float | None = 1.0,
    weight: Callable[..., object] | Expression | str | None = None,
    key: Callable[..., object] | Expression | str | None = None,
    on_error: OnError | None = None,
) -> BatchStage:
    """Gather items and work on them together: `batch(judge, size=20, within=2.0)`.

    `body` gets the list of payloads (`parts` in its templates, which see nothing else of the items) and has to give a
    list of as many results, in that order; each item goes on with its own. Without a body the list goes on as one item
    and leaves one record with `inputs`, the ids; that form stands on the top-level chain only.

    A batch goes when it has `size` items, when the first of them has waited `within` seconds, at the end of the input
    and when a run drains. With `weight`, a function of the payload alone or an expression, which gives a number, `size`
    is the most that a batch may weigh, checked before an item is added; one that is heavier goes alone. With `key`, the
    same kind of thing, a batch has items of one key only. `within=None` waits until it is full, and is refused where
    that could be for ever.
    """
    if misplaced or isinstance(body, str):
        text = "begins with its body, if it has one, and takes its name as name="
        raise DefinitionError(Problem(None, "batch", text, 'batch(body, size=…, name="scores")'))
    over = None if body is None else as_stage(body)
    return BatchStage(name, over, size, within, read_decision(weight), read_decision(key), on_error)


def _from_file(name: str, *, body: Stage | None = None, **values: object) -> BatchStage:
    return batch(body, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "batch",
    {
        "size": Field("count", required=True, help="most items in a batch, or the most that it may weigh"),
        "within": Field("duration", help="longest that an item waits for others; none: until it is full"),
        "weight": Field("decision", help="an expression that gives a number, or {call: …}"),
        "key": Field("decision", help="items of one key only: an expression, or {call: …}"),
        "body": Field("body", help="stages that give one result for each of `parts`; without it one record is left"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the body fails"),
    },
    _from_file,
    "works on several items at once",
)
