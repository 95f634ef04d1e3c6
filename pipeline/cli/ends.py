"""The ends of a run as the command opens them: installed sources and sinks, found by name.

They are entry points of the groups `penstock.sources` and `penstock.sinks`, because the engine does not import what is
put into it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, cast, runtime_checkable

from pipeline.core.errors import PipelineError
from pipeline.core.ports import Resource, Sink, Source
from pipeline.core.progress import Progress, Rereadable, Traced
from pipeline.core.record import Input, Record


def source(**options: object) -> Source:
    """The installed reader of files and stdin. Raises `DefinitionError` for options that it does not take."""
    return cast(Source, _installed("penstock.sources", "inputs")(**options))


def sink(name: str, **options: object) -> Resource[Sink]:
    """The installed sink `name`."""
    return cast("Resource[Sink]", _installed("penstock.sinks", name)(**options))


def server(name: str) -> object:
    """The installed server `name`, an entry point of the group `penstock.servers`."""
    return _installed("penstock.servers", name)


def _installed(group: str, name: str) -> Callable[..., object]:
    for point in entry_points(group=group, name=name):
        return cast("Callable[..., object]", point.load())
    raise PipelineError(f"the installation lacks {name!r} (entry points of the group {group}); install penstock again")


@runtime_checkable
class Removable(Protocol):
    """An open sink that may have made a file that nobody needs."""

    def remove_if_empty(self) -> None:
        """Take it away if nothing is in it."""
        ...


class Renders(Protocol):
    """A sink that says which bytes it writes of a record."""

    @property
    def render(self) -> Callable[[Record], bytes]:
        """Gives a record's line; nothing if it has none. Raises `ItemError`."""
        ...


@dataclass(frozen=True, slots=True)
class Silence:
    """A sink that writes nothing, where somebody else does."""

    def open(self) -> AbstractAsyncContextManager[OpenSilence]:
        """Open it."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenSilence]:
        yield OpenSilence()


class OpenSilence:
    """The open form of `Silence`."""

    async def write(self, record: Record) -> None:
        del record


@dataclass(frozen=True, slots=True)
class Nothing:
    """A source without records, for a run that only finishes what it has."""

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Input]]:
        """Open nothing."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[AsyncIterator[Input]]:
        yield _none()


async def _none() -> AsyncGenerator[Input]:
    for record in ():
        yield record


class Watched:
    """The records of a source, and whether they have come to an end by themselves, which `told` is told once."""

    def __init__(self, records: AsyncIterator[Input], told: Callable[[], None] | None = None) -> None:
        self._records = records
        self._told = told
        self.ended = False

    def __aiter__(self) -> Watched:
        return self

    # -- satisfies `progress.Traced`, as far as the source does --------------------------------------------------

    def trace(self) -> None:
        if isinstance(self._records, Traced):
            self._records.trace()

    @property
    def taken(self) -> int:
        return self._records.taken if isinstance(self._records, Traced) else 0

    def progress(self) -> Sequence[Progress]:
        return self._records.progress() if isinstance(self._records, Traced) else ()

    # -----------------------------------------------------------------------------------------------------------

    async def __anext__(self) -> Input:
        try:
            return await anext(self._records)
        except StopAsyncIteration:
            if self._told is not None and not self.ended:
                self._told()
            self.ended = True
            raise


@dataclass(frozen=True, slots=True)
class Begun:
    """A source that is open already, so that what cannot be read is known before anything else is begun."""

    records: Watched
    source: Source
    accepts: bool = False  #: whatever comes from stdin

    def open(self) -> AbstractAsyncContextManager[Watched]:
        """Give what is open; whoever opened it closes it."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Watched]:
        yield self.records

    def differences(self, before: Sequence[Progress]) -> Sequence[str]:
        """Satisfies `progress.Rereadable`."""
        if not isinstance(self.source, Rereadable):
            return ()
        piped = [each.name for each in before if each.name == "-"] if self.accepts else []
        return (*self.source.differences(before), *("stdin: is taken as it comes" for _ in piped))

    def again(self) -> Source | None:
        """Satisfies `progress.Rereadable`."""
        return self.source.again() if isinstance(self.source, Rereadable) else None


@dataclass(frozen=True, slots=True)
class Heard:
    """A sink that tells `hear` of each record once it is written."""

    inner: Resource[Sink]
    hear: Callable[[Record], None]
    unused: Callable[[], bool] = lambda: False  #: whether the run ends before there was anything to write

    def open(self) -> AbstractAsyncContextManager[OpenHeard]:
        """Open the sink behind it."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenHeard]:
        async with self.inner.open() as out:
            yield OpenHeard(out, self.hear)
            if self.unused() and isinstance(out, Removable):
                out.remove_if_empty()


@dataclass(frozen=True, slots=True)
class OpenHeard:
    """The open form of `Heard`."""

    out: Sink
    hear: Callable[[Record], None]

    async def write(self, record: Record) -> None:
        await self.out.write(record)
        self.hear(record)
