"""Shaping what goes into a run, or what comes out of it, outside of the pipeline.

    records = await pipe.collect(shape(prompts).skip(10).take(100))
    async for pair in shape(run.results).filter(good).chunks(2): ...

The operators `chunks take skip filter enumerate` are those of aiostream that need no event loop of their own, so they
run on asyncio and on trio; its others, the concurrent and the timed ones, run on asyncio only: `to_aiostream`. What is
iterated is an object, so that whoever iterates closes it, in the same task.

This is the one door of aiostream, and it is imported when a shape is first iterated. aiostream is licensed
GPL-3.0-or-later, Penstock itself Apache-2.0.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypeVar, cast, overload

from anyio.lowlevel import current_token

from pipeline.core.errors import DefinitionError, PipelineError, Problem, SourceError
from pipeline.core.iteration import resolved
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Source
from pipeline.core.record import Input
from pipeline.core.results import Results
from stages.shaped import Members, Shaped

if TYPE_CHECKING:
    from aiostream.core import Stream

T = TypeVar("T")

OperatorName: TypeAlias = Literal["chunks", "take", "skip", "filter", "enumerate"]


@dataclass(frozen=True, slots=True)
class Operator:
    """One step of a shape."""

    name: OperatorName
    argument: object

    def __str__(self) -> str:
        return f"{self.name}({getattr(self.argument, '__name__', self.argument)})"


@dataclass(frozen=True, repr=False)
class Shape(Generic[T]):
    """A source, or the results of a run, and the operators that they pass. A value; each method gives a new one.

    As a source it can be given to `open`, `collect` and `run` of a pipeline; around `run.results` it is for the host's
    own loop. Made by `shape`. Raises `DefinitionError` for an operator that goes by the place of a record, around
    results that come in no order.
    """

    source: object
    operators: tuple[Operator, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.source, Results) and not self.source.ordered:
            for operator in self.operators:
                if operator.name != "filter":
                    what = f"shape(run.results).{operator} goes by the place of records, which is chance without it"
                    raise _wrong("ordered", what, "write Pipeline(…, ordered=True), or shape the source")

    def take(self, count: int) -> Shape[T]:
        """The first `count`; then the end, and the source is closed without being asked for another one."""
        return self._then("take", _whole("take", count, 0))

    def skip(self, count: int) -> Shape[T]:
        """All but the first `count`."""
        return self._then("skip", _whole("skip", count, 0))

    def filter(self, keep: Callable[[T], object] | Callable[[T], Awaitable[object]]) -> Shape[T]:
        """Those for which `keep`, plain or async, says true. It runs on the event loop, so it must not block."""
        if not callable(keep):
            raise _wrong("shape.filter", f"must be a function, got {keep!r}")
        return self._then("filter", keep)

    def chunks(self, size: int) -> Shape[list[T]]:
        """Lists of `size`, the last one of what is left. A list that is not full yet is lost when the wait for its next
        member is cancelled, as by a drain, or raises."""
        return self._then("chunks", _whole("chunks", size, 1))

    def enumerate(self, start: int = 0) -> Shape[tuple[int, T]]:
        """Pairs of a number, from `start`, and what it counts."""
        return self._then("enumerate", start)

    def _then(self, name: OperatorName, argument: object) -> Any:
        return Shape[Any](self.source, (*self.operators, Operator(name, argument)))

    def __aiter__(self) -> Shaped[T]:
        source = self.source
        if isinstance(source, AsyncIterable):
            return self._over(aiter(cast("AsyncIterable[object]", source)))
        if isinstance(source, Iterable):
            return self._over(Members(cast("Iterable[object]", source)))
        raise PipelineError(
            f"{type(source).__name__} has to be opened: give the shape to pipe.open or pipe.collect, or iterate "
            "`async with shape(…).open() as records`"
        )

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Shaped[T]]:
        """Open the source, if it is one that has to be opened, and close the iteration with the block.
        So a shape is a `Source` itself."""
        if isinstance(self.source, AsyncIterable | Iterable):
            async with aclosing(aiter(self)) as shaped:
                yield shaped
        else:
            async with cast(Source, self.source).open() as records, aclosing(self._over(records)) as shaped:
                yield shaped

    def _over(self, records: AsyncIterator[object]) -> Shaped[T]:
        return Shaped[T](records, partial(_operate, self.operators))

    def __repr__(self) -> str:
        return ".".join((f"shape({self.source!r})", *map(str, self.operators)))


@overload
def shape(source: Shape[T]) -> Shape[T]: ...
@overload
def shape(source: AsyncIterable[T] | Iterable[T]) -> Shape[T]: ...
@overload
def shape(source: Source) -> Shape[Input]: ...
def shape(source: object) -> Shape[Any]:
    """Begin to shape `source`: an iterable or async iterable of prompts, a `Source`, or `run.results`."""
    if isinstance(source, Shape):
        return cast("Shape[Any]", source)
    if isinstance(source, str | bytes | Mapping):
        raise SourceError("a source is an iterable of prompts, not one prompt or record; put it in a list")
    if isinstance(source, Pipeline) or not isinstance(source, AsyncIterable | Iterable | Source):
        raise _wrong("shape", f"stands around a source or around run.results, got {type(source).__name__}")
    return Shape(cast(object, source))


def to_aiostream(records: AsyncIterable[T]) -> Stream[T]:
    """Hand `run.results`, or a shape, to aiostream, under asyncio. All of its operators can follow:

        async with stream.map(to_aiostream(run.results), store, task_limit=4).stream() as streamer:
            async for record in streamer: ...

    Leave that block before the run's. Raises `PipelineError` on trio.
    """
    if not hasattr(current_token().native_token, "create_task"):  # which loops of asyncio have; it is not imported here
        raise PipelineError("aiostream runs on asyncio only; on trio, iterate run.results, or shape(run.results)")
    from aiostream import stream

    return stream.iterate(records)


def _operate(operators: tuple[Operator, ...], records: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Lead `records` through the operators."""
    from aiostream import stream

    for operator in operators:
        argument = cast(Any, operator.argument)
        match operator.name:
            case "take":
                records = stream.take.raw(records, argument)
            case "skip":
                records = stream.skip.raw(records, argument)
            case "filter":
                records = stream.filter.raw(records, _decision(argument))
            case "chunks":
                records = stream.chunks.raw(records, argument)
            case "enumerate":
                records = stream.enumerate.raw(records, argument)
    return records


def _decision(keep: Callable[[Any], object]) -> Callable[[Any], Awaitable[bool]]:
    """`keep` as a coroutine function: aiostream awaits what it can tell to be one, and no other callable."""

    async def decide(value: Any) -> bool:
        return bool(await resolved(keep(value)))

    return decide


def _whole(operator: OperatorName, value: int, least: int) -> int:
    if type(value) is not int or value < least:
        raise _wrong(f"shape.{operator}", f"must be a whole number of at least {least}, got {value!r}")
    return value


def _wrong(option: str, message: str, hint: str | None = None) -> DefinitionError:
    return DefinitionError(Problem(None, option, message, hint))
