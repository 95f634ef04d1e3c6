"""Functions as stages: `map`, `filter`, `flat_map`.

A plain function is called on the event loop, so it must not block; `blocking=True` moves it to worker threads,
`cpu=True` to worker processes. Adjacent plain functions are fused by the engine.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from pipeline.core.arity import accepts
from pipeline.core.decisions import Misread, decision_problems, read_decision
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage, Plain, Process, Visited
from pipeline.core.placing import Place, placing_problems, runner_of
from pipeline.core.replay import once
from pipeline.core.stage import OnError, Stage, Template
from pipeline.core.state import ConversationState, Outputs
from pipeline.core.streams import BURST
from pipeline.core.templates import Expression
from pipeline.core.threads import is_blocking
from pipeline.core.visit import Visit, template_names
from pipeline.core.words import Field, Word

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

Function: TypeAlias = Callable[..., Any]
Unawaited: TypeAlias = "CoroutineType[object, object, object]"


@dataclass(frozen=True)
class FunctionStage(LeafStage):
    """What `map` and `filter` share: a function of the payload, and of the visit if it takes two parameters."""

    function: Function | Expression = str
    blocking: bool = False
    cpu: bool = False
    timeout: float | None = None
    pure: bool = field(default=True, kw_only=True)  #: if not, a run with a journal keeps what the function gives

    functions: ClassVar[tuple[str, ...]] = ("function",)

    @property
    def option(self) -> str:
        """What the expression is called in a pipeline file."""
        return "value"

    @property
    def buffer_size(self) -> int:
        return BURST

    def templates(self) -> Mapping[str, Template]:
        return {self.option: self.function} if isinstance(self.function, Expression) else {}

    def watched(self, watch: Callable[[Stage, object], object]) -> Stage:
        return self if self.cpu else super().watched(watch)  # a process has a copy anyway

    @property
    def place(self) -> Place:
        """Where the function runs."""
        return "processes" if self.cpu else "threads" if self.blocking else "loop"

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found = super().problems(in_body=in_body)
        found += tuple(decision_problems(self.name, None, self.function, visit=True))
        if found:
            return found
        if isinstance(self.function, Expression):
            options = {option: getattr(self, option) for option in ("blocking", "cpu", "timeout")}
            given = {**options, "concurrency": self.concurrency != 1, "pure": self.pure is not True}
            text = "has no effect on an expression, which never waits"
            return tuple(
                Problem(self.name, option, text, "leave it out") for option, is_given in given.items() if is_given
            )
        if self.blocking and self.cpu:
            text = "it can run in worker threads or in worker processes, not in both"
            return (Problem(self.name, "cpu", text, "leave blocking or cpu out"),)
        if self.concurrency != 1 and self.plain() is not None:
            text = "has no effect on a plain function, which never waits"
            return (Problem(self.name, "concurrency", text, "leave it out, or run it with blocking or cpu"),)
        return tuple(placing_problems(self.name, self.function, self.place, self.timeout, parameters=1))

    def next_item(self, item: Item, result: object) -> Visited:
        """The item that goes on after the function returned `result`."""
        raise NotImplementedError

    def kept(self, result: object) -> object:
        """What is kept of a result of a function that is not pure."""
        return result

    def plain(self) -> Plain | None:
        function = self.function
        if isinstance(function, Expression):
            return lambda item: self.next_item(item, function.evaluate(template_names(item)))
        if self.place != "loop" or not is_blocking(function) or accepts(function, 2) or not self.pure:
            return None
        next_item = self.next_item

        def plain(item: Item) -> Visited:
            result = function(item.value)
            if type(result) is CoroutineType:
                raise _unawaited(cast("Unawaited", result))
            return next_item(item, result)

        return plain

    def bind(self, scope: Scope) -> Process:
        plain = self.plain()
        if plain is not None:
            return lambda item, worker: plain(item)
        function = self.function
        if isinstance(function, Expression):  # expressions are always plain
            raise TypeError("an expression has a plain form")
        if not self.pure:
            return self._bind_once(function, scope)
        if self.place != "loop" or self.timeout is not None:
            return self._bind_to_runner(function, scope)
        return self._bind_with_visit(function) if accepts(function, 2) else self._bind_async(function)

    def _bind_once(self, function: Function, scope: Scope) -> Process:
        runner = runner_of(scope, self.name, self.place, self.concurrency, self.timeout)
        with_visit = accepts(function, 2)

        async def ask(*args: object) -> object:
            return self.kept(await runner.run(function, *args))

        async def process(item: Item, worker: Worker) -> Visited:
            visit = Visit(worker, item)
            args = (item.value, visit) if with_visit else (item.value,)
            return self.next_item(item, await once("value", item, self.name, lambda: ask(*args), visit.remark))

        return process

    def _bind_async(self, function: Function) -> Process:
        next_item = self.next_item

        async def process(item: Item, worker: Worker) -> Visited:
            return next_item(item, await function(item.value))

        return process

    def _bind_with_visit(self, function: Function) -> Process:
        async def process(item: Item, worker: Worker) -> Visited:
            result = function(item.value, Visit(worker, item))
            return self.next_item(item, await result if inspect.isawaitable(result) else result)

        return process

    def _bind_to_runner(self, function: Function, scope: Scope) -> Process:
        runner = runner_of(scope, self.name, self.place, self.concurrency, self.timeout)
        with_visit = accepts(function, 2)

        async def process(item: Item, worker: Worker) -> Visited:
            args = (item.value, Visit(worker, item)) if with_visit else (item.value,)
            return self.next_item(item, await runner.run(function, *args))

        return process


def _unawaited(result: Unawaited) -> ItemError:
    """What a function that only looks plain has made of its item: a coroutine, which nobody would ever run."""
    result.close()
    text = f"the function returned the coroutine {result.__name__}(…), not its result; declare it with async def"
    return ItemError(text, type="coroutine_returned")


@dataclass(frozen=True)
class MapStage(FunctionStage):
    """Sends on what the function returns, as its output."""

    def next_item(self, item: Item, result: object) -> Visited:
        if type(result) is Item:
            return result
        _, state, frame, missing = item
        return Item(
            result, ConversationState(state.messages, Outputs(state.outputs, self.name, result)), frame, missing
        )


@dataclass(frozen=True)
class FilterStage(FunctionStage):
    """Sends the item on as it is when the function says true, else skips it."""

    @property
    def option(self) -> str:
        return "when"

    @property
    def thins(self) -> bool:
        return True

    def kept(self, result: object) -> object:
        return bool(result)

    def next_item(self, item: Item, result: object) -> Visited:
        return item if result else None

    def produces(self) -> Mapping[str, None]:
        return {}


def map(
    function: Callable[..., object] | Callable[..., Awaitable[object]] | Expression | str,
    *,
    name: str | None = None,
    concurrency: int = 1,
    blocking: bool = False,
    cpu: bool = False,
    timeout: float | None = None,
    on_error: OnError | None = None,
    pure: bool = True,
) -> MapStage:
    """Apply `function` to each payload: `fn(value)` or `fn(value, visit)`, plain or async; or an expression over the
    names in view, such as `"{{ draft.title }}"`, which needs a `name`.

    Its result is the payload that goes on and the output under `name` (the function's own by default). `blocking` runs
    it in worker threads, `concurrency` at a time; what of the visit is async stays out of its reach there. `cpu` runs
    it in worker processes instead, to which function, payload and result travel by pickle.

    `timeout` is for async, blocking and cpu functions: a visit that takes longer fails as `VisitTimeout`. Its clock
    starts with the function, not with the wait for a thread. The function is cancelled, its process killed; a thread
    cannot be stopped, so it runs on, keeps its place among the `concurrency`, and its result is refused.

    In a run with a journal that is resumed, a function is called again for an item that was not finished. One that
    costs, or says another thing each time, is not `pure`: its results, which are to be plain JSON, are kept then. What
    it raises is not kept, and one that was interrupted is called again.
    """
    read = read_decision(function)
    given = name or name_of("map", read, OUTPUT)
    return MapStage(given, concurrency, on_error, read, blocking, cpu, timeout, pure=pure)


def filter(
    function: Callable[..., object] | Callable[..., Awaitable[object]] | Expression | str,
    *,
    name: str | None = None,
    concurrency: int = 1,
    blocking: bool = False,
    cpu: bool = False,
    timeout: float | None = None,
    on_error: OnError | None = None,
    pure: bool = True,
) -> FilterStage:
    """Let items pass for which `function` says true; the others are skipped and leave no record. Options are those of
    `map`."""
    read = read_decision(function)
    given = name or name_of("filter", read, COUNTS)
    return FilterStage(given, concurrency, on_error, read, blocking, cpu, timeout, pure=pure)


#: what the name of a stage is for
OUTPUT, COUNTS = "so that its output can be found", "by which its counts can be found"


def name_of(kind: str, function: object, use: str) -> str:
    """The name of a function's stage: its own. A lambda and an expression have none, so their stage is to be named."""
    if isinstance(function, Misread):
        raise DefinitionError(Problem(None, kind, function.message, function.hint))
    if not callable(function) and not isinstance(function, Expression):
        raise DefinitionError(Problem(None, kind, f"needs a function, got {function!r:.60}"))
    name = str(getattr(function, "__name__", type(function).__name__))
    if name == "<lambda>" or isinstance(function, Expression):
        what = "a lambda" if name == "<lambda>" else "an expression"
        raise DefinitionError(Problem(None, "name", f"{what} has no name", f"pass name='…', {use}"))
    return name


def _map_from_file(name: str, **values: object) -> MapStage:
    call, value = values.pop("call", None), values.pop("value", None)
    if (call is None) == (value is None):
        raise DefinitionError(Problem(name, None, "needs either 'call' or 'value'", 'value: "{{ prompt | upper }}"'))
    return MapStage(name, function=cast("Function | Expression", call or value), **_typed(values))


def _filter_from_file(name: str, **values: object) -> FilterStage:
    return FilterStage(name, function=cast("Function | Expression", values.pop("when")), **_typed(values))


def _typed(values: dict[str, object]) -> dict[str, Any]:
    """The options, whose types the configuration has checked against their fields."""
    return values


_OPTIONS: Mapping[str, Field] = {
    "concurrency": Field("count", help="visits at once"),
    "blocking": Field("flag", help="run it in worker threads"),
    "cpu": Field("flag", help="run it in worker processes"),
    "timeout": Field("duration", help="of one visit; for async, blocking and cpu functions"),
    "pure": Field("flag", help="false: a run with a journal keeps what the function gives"),
    "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="what a failed item becomes"),
}

MAP_WORD = Word(
    "map",
    {
        "call": Field("call", help="module:attribute, under --allow-import"),
        "value": Field("expression", help="an expression over the names in view"),
        **_OPTIONS,
    },
    _map_from_file,
    "applies a function or an expression to each item",
)
FILTER_WORD = Word(
    "filter",
    {"when": Field("decision", required=True, help='an expression, or {call: "module:attr"}'), **_OPTIONS},
    _filter_from_file,
    "lets items pass for which the condition holds",
)
