"""Records as lines: `JsonlSink` writes each as a line of JSON, `RawSink` only the text of its output."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from pipeline.core.codec import encode, encode_line
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.record import Record
from stages.sinks.opening import MODES, STDOUT, Mode, open_output
from stages.sinks.output import Output, StreamOutput

Detail: TypeAlias = Literal["minimal", "standard"]


class OpenSink:
    """An open sink. A record is out, as far as the system is concerned, when `write` returns."""

    def __init__(self, output: Output | StreamOutput, render: Callable[[Record], bytes]) -> None:
        self._output = output
        self._render = render
        self._lines = 0

    async def write(self, record: Record) -> None:
        """Write the record's line, if it has one.

        Raises `NotJson` for an output without a JSON form, `SinkClosed` when the reader has left, `WriteError` when
        the system refuses. A line is never torn by cancellation: what was begun is finished first.
        """
        line = self._render(record)
        if line:
            await self._output.write(line)
            self._lines += 1

    async def text(self, piece: str) -> None:
        """Write text that need not be a line: a piece of an output that comes bit by bit. Raises as `write` does."""
        await self._output.write(piece.encode("utf-8", "backslashreplace"))

    @property
    def lines(self) -> int:
        """Lines written."""
        return self._lines


@dataclass(frozen=True, slots=True)
class JsonlSink:
    """Every record that has an output line, one JSON object a line, failed records included.

    `path` `-` is stdout. `mode` create refuses a file that exists. `detail` minimal keeps id, status, output and error.
    `inputs` are paths that the output must not be. A record is written with one system call and not buffered.
    """

    path: str = STDOUT
    mode: Mode = "create"
    detail: Detail = "standard"
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = _mode_problems(self.mode)
        if self.detail not in _LEVELS:
            hint = f"levels are {', '.join(_LEVELS)}"
            problems.append(Problem(None, "detail", f"there is no level of detail {self.detail!r}", hint))
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenSink]:
        """Open the output for one run. Raises `SinkError` before anything is begun."""
        select = _LEVELS[self.detail]
        return _opened(self.path, self.mode, self.inputs, lambda record: encode_line(select(record)))


@dataclass(frozen=True, slots=True)
class RawSink:
    """The output of every ok or partial record and nothing else, one a line: text as it is, anything else as JSON.

    `field` takes one field of a structured output instead, or else the output of the stage with that name; null if
    there is neither. Text that holds line ends spans lines.
    """

    path: str = STDOUT
    field: str | None = None
    mode: Mode = "create"
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = _mode_problems(self.mode)
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenSink]:
        """Open the output for one run. Raises `SinkError` before anything is begun."""
        field = self.field
        return _opened(self.path, self.mode, self.inputs, lambda record: _raw(record, field))


def minimal(record: Record) -> dict[str, object]:
    """The record without anything but its id, its status, its output and its error."""
    return {
        "id": record.id,
        "status": record.status,
        "output": record.output,
        "error": record.error.as_json() if record.error else None,
    }


_LEVELS: Mapping[str, Callable[[Record], dict[str, object]]] = {"minimal": minimal, "standard": Record.standard}


@asynccontextmanager
async def _opened(
    path: str, mode: Mode, inputs: tuple[str, ...], render: Callable[[Record], bytes]
) -> AsyncGenerator[OpenSink, None]:
    output = open_output(os.fspath(path), mode, inputs)
    try:
        yield OpenSink(output, render)
    finally:
        await output.aclose()


def _raw(record: Record, field: str | None) -> bytes:
    if record.status not in ("ok", "partial"):
        return b""
    value = record.output
    if field is not None:
        value = _named(record, field)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace") + b"\n"
    return encode(value) + b"\n"


def _named(record: Record, field: str) -> object:
    output = record.output
    inside = cast(Mapping[str, object], output) if isinstance(output, Mapping) else record.outputs
    return inside[field] if field in inside else record.outputs.get(field)


def _mode_problems(mode: str) -> list[Problem]:
    if mode in MODES:
        return []
    return [Problem(None, "mode", f"there is no mode {mode!r}", f"modes are {', '.join(MODES)}")]
