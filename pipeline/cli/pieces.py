"""The answer of one agent, shown piece by piece while it comes.

With `-r` to stdout the pieces are the output, and what they lack of it is added when the record is there. Otherwise
they are shown on stderr. An attempt that begins anew is told, because what is out cannot be taken back.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import anyio

from pipeline.cli.streaming import Streamed
from pipeline.cli.voice import Voice
from pipeline.core.codec import BadJson, decode, encode
from pipeline.core.events import Event, TextStreamed
from pipeline.core.ports import Resource, Sink
from pipeline.core.record import Record


class TakesText(Protocol):
    """An open sink that also takes text which is no whole line."""

    async def text(self, piece: str) -> None: ...


class Pieces:
    """What changes: the attempt at hand, what is shown of it, and what is not written yet. One output, one answer."""

    def __init__(self, what: Streamed, voice: Voice) -> None:
        self._what = what
        self._voice = voice
        self._attempt: tuple[object, ...] | None = None
        self._past: set[tuple[object, ...]] = set()
        self._shown: list[str] = []  #: of the attempt at hand
        self._mid_line = False
        self._waiting: deque[str] = deque()  #: for the output
        self._news = anyio.Event()
        self._writing = anyio.Lock()
        self._out: TakesText | None = None
        voice.before = self._before_words

    def hear(self, event: Event) -> None:
        """Show `event`, if it is a piece of the agent's answer."""
        if not isinstance(event, TextStreamed) or event.path[-1] != self._what.stage:
            return
        attempt = (event.path, event.ordinal, event.attempt)
        if attempt in self._past:
            return  # another one has taken its place
        if attempt != self._attempt:
            self._begin(attempt)
        self._shown.append(event.text)
        self._show(event.text)

    def _begin(self, attempt: tuple[object, ...]) -> None:
        before, self._attempt = self._attempt, attempt
        self._shown.clear()
        if before is not None:
            self._past.add(before)
            again = f"attempt {attempt[2]} follows" if before[:2] == attempt[:2] else "the model is asked once more"
            self._voice.error(f"note: what came so far is not the answer; {again}")
            self._end_line()

    def _show(self, text: str) -> None:
        self._mid_line = not text.endswith("\n") if text else self._mid_line
        if self._what.to_output:
            self._waiting.append(text)
            self._news.set()
        else:
            self._voice.piece(text)

    def _end_line(self) -> None:
        if self._mid_line:
            self._show("\n")

    def _before_words(self) -> None:
        """Words do not follow a piece on its line."""
        if self._mid_line and (not self._what.to_output or _is_one_place()):
            self._mid_line = False
            self._voice.piece("\n")

    # -- the output ---------------------------------------------------------------------------------------------

    def before(self, sink: Resource[Sink]) -> Resource[Sink]:
        """The sink of the record, which comes after the pieces."""
        return _After(sink, self)

    async def pump(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            while self._waiting and self._out is not None:
                await self._out.text(self._waiting.popleft())

    @asynccontextmanager
    async def opened(self, sink: Sink) -> AsyncGenerator[Sink]:
        """Send pieces to `sink`, if they are the output, for the length of the block."""
        self._out = cast(TakesText, sink) if self._what.to_output else None
        try:
            yield _OpenAfter(sink, self)
        finally:
            self._out = None

    async def write(self, record: Record, sink: Sink) -> None:
        """Write the record, or what its output has beyond the pieces."""
        if not self._what.to_output:
            self._end_line()
            await sink.write(record)
            return
        if record.status in ("ok", "partial"):
            self._complete(record.output)
        self._end_line()
        await self._flush()

    def _complete(self, output: object) -> None:
        text = output if isinstance(output, str) else encode(output).decode()
        shown = "".join(self._shown)
        if text.startswith(shown):
            self._show(f"{text[len(shown) :]}\n")
        elif not _is_json_of(output, shown):
            self._voice.error("note: what came so far is not the answer, which follows")
            self._end_line()
            self._show(f"{text}\n")


@dataclass(frozen=True, slots=True)
class _After:
    """A sink whose record comes after the pieces of its answer."""

    inner: Resource[Sink]
    pieces: Pieces

    def open(self) -> AbstractAsyncContextManager[Sink]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Sink]:
        async with self.inner.open() as sink, self.pieces.opened(sink) as after:
            yield after


@dataclass(frozen=True, slots=True)
class _OpenAfter:
    """The open form of `_After`."""

    sink: Sink
    pieces: Pieces

    async def write(self, record: Record) -> None:
        await self.pieces.write(record, self.sink)


def _is_json_of(output: object, shown: str) -> bool:
    """Whether `shown` is another spelling of a structured output."""
    try:
        return not isinstance(output, str) and decode(shown.encode()) == output
    except (BadJson, ValueError):
        return False


def _is_one_place() -> bool:
    """Whether records and words go to the same terminal, pipe or file."""
    try:
        return os.path.samestat(os.fstat(1), os.fstat(2))
    except OSError:
        return False
