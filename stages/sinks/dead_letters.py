"""Records that failed, in full, to a file of their own beside an output. A run with a journal does that by itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from pipeline.core.dead_letter import dead_letter
from pipeline.core.ports import Resource, Sink
from pipeline.core.record import Record
from pipeline.core.refusals import Mode
from stages.sinks.lines import OpenSink
from stages.sinks.opening import open_output
from stages.sinks.output import Output, StreamOutput
from stages.sinks.packed import PackedOutput


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """A sink that writes records to `inner`, and the long form of those that failed to the file at `path` too."""

    inner: Resource[Sink]
    path: str
    mode: Mode = "create"
    inputs: tuple[str, ...] = ()

    def open(self) -> AbstractAsyncContextManager[OpenDeadLetters]:
        """Open both. Raises `SinkError` before anything is begun."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenDeadLetters]:
        async with self.inner.open() as records:
            letters = open_output(self.path, self.mode, self.inputs)
            try:
                yield OpenDeadLetters(records, letters)
            except BaseException:
                letters.remove_if_empty()
                raise
            finally:
                await letters.aclose()


@dataclass(frozen=True, slots=True)
class OpenDeadLetters:
    """The open form of `DeadLetters`."""

    records: Sink
    letters: Output | PackedOutput | StreamOutput

    async def write(self, record: Record) -> None:
        """Write the record, then its dead letter if it failed. Raises as the sink does."""
        await self.records.write(record)
        if record.status == "failed":
            await self.letters.write(dead_letter(record))

    def remove_if_empty(self) -> None:
        """Take files away that were made for this run and have nothing in them."""
        self.letters.remove_if_empty()
        if isinstance(self.records, (OpenSink, OpenDeadLetters)):
            self.records.remove_if_empty()
