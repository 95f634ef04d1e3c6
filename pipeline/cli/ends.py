"""The ends of a run as the command opens them: installed sources and sinks, found by name.

They are entry points of the groups `penstock.sources` and `penstock.sinks`, because the engine does not import what is
put into it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import cast

from pipeline.core.errors import PipelineError
from pipeline.core.ports import Resource, Sink, Source
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

    async def __anext__(self) -> Input:
        try:
            return await anext(self._records)
        except StopAsyncIteration:
            if self._told is not None and not self.ended:
                self._told()
            self.ended = True
            raise


@dataclass(frozen=True, slots=True)
class Heard:
    """A sink that tells `hear` of each record once it is written."""

    inner: Resource[Sink]
    hear: Callable[[Record], None]

    def open(self) -> AbstractAsyncContextManager[OpenHeard]:
        """Open the sink behind it."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenHeard]:
        async with self.inner.open() as out:
            yield OpenHeard(out, self.hear)


@dataclass(frozen=True, slots=True)
class OpenHeard:
    """The open form of `Heard`."""

    out: Sink
    hear: Callable[[Record], None]

    async def write(self, record: Record) -> None:
        await self.out.write(record)
        self.hear(record)
