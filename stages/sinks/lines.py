"""Records as lines: `JsonlSink` writes each as a line of JSON, `RawSink` only the text of its output."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from pipeline.core.codec import encode_line
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.lines import standard_line
from pipeline.core.record import Record
from pipeline.core.refusals import MODES, Mode
from stages.sinks.opening import STDOUT
from stages.sinks.several import One, Several, label_problems, outputs

Detail: TypeAlias = Literal["minimal", "standard"]
Render: TypeAlias = Callable[[Record], bytes]


class OpenSink:
    """An open sink. A record is out, as far as the system is concerned, when `write` returns."""

    def __init__(self, outputs: One | Several, render: Render) -> None:
        self._outputs = outputs
        self._render = render
        self._lines = 0

    async def write(self, record: Record) -> None:
        """Write the record's line, if it has one.

        Raises `NotJson` for an output without a JSON form, `SinkClosed` when the reader has left, `WriteError` when
        the system refuses. A line is never torn by cancellation: what was begun is finished first.
        """
        line = self._render(record)
        if line:
            await (await self._outputs.of(record)).write(line)
            self._lines += 1

    async def text(self, piece: str) -> None:
        """Write text that need not be a line: a piece of an output that comes bit by bit. Raises as `write` does."""
        await (await self._outputs.of(None)).write(piece.encode("utf-8", "backslashreplace"))

    def remove_if_empty(self) -> None:
        """Take the file away if it was made for this run and nothing is in it."""
        self._outputs.remove_if_empty()

    @property
    def lines(self) -> int:
        """Lines written."""
        return self._lines


@dataclass(frozen=True, slots=True)
class JsonlSink:
    """Every record that has an output line, one JSON object a line, failed records included.

    `path` `-` is stdout. In the name of a file `{status}` stands for the record's status and `{label}` for its output
    of the name `label`; a name that ends in `.gz` is compressed. `mode` create refuses a file that exists. `detail`
    minimal keeps id, status, output and error. `inputs` are paths that the output must not be. A record is written with
    one system call and not buffered, unless it is compressed.
    """

    path: str = STDOUT
    mode: Mode = "create"
    detail: Detail = "standard"
    inputs: tuple[str, ...] = ()
    label: str | None = None

    def __post_init__(self) -> None:
        problems = _mode_problems(self.mode)
        if self.detail not in _LEVELS:
            hint = f"levels are {', '.join(_LEVELS)}"
            problems.append(Problem(None, "detail", f"there is no level of detail {self.detail!r}", hint))
        problems += label_problems(self.path, self.label)
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenSink]:
        """Open the output for one run. Raises `SinkError` before anything is begun."""
        return _opened(self)

    @property
    def render(self) -> Render:
        """What makes a line of a record, for a journal that writes the output."""
        return _LEVELS[self.detail]


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
    label: str | None = None

    def __post_init__(self) -> None:
        problems = [*_mode_problems(self.mode), *label_problems(self.path, self.label)]
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenSink]:
        """Open the output for one run. Raises `SinkError` before anything is begun."""
        return _opened(self)

    @property
    def render(self) -> Render:
        """What makes a line of a record, for a journal that writes the output."""
        return RawLine(self.field)


@dataclass(frozen=True, slots=True)
class RawLine:
    """Makes the line of `RawSink`; empty for a record that has none."""

    field: str | None = None

    def __call__(self, record: Record) -> bytes:
        if record.status not in ("ok", "partial"):
            return b""
        value = record.output if self.field is None else _named(record, self.field)
        if isinstance(value, str):
            return value.encode("utf-8", "backslashreplace") + b"\n"
        return encode_line(value)


def minimal(record: Record) -> dict[str, object]:
    """The record without anything but its id, its status, its output and its error."""
    return {
        "id": record.id,
        "status": record.status,
        "output": record.output,
        "error": record.error.as_json() if record.error else None,
    }


def minimal_line(record: Record) -> bytes:
    """The line of that. Raises `NotJson`."""
    return encode_line(minimal(record))


_LEVELS: Mapping[str, Render] = {"minimal": minimal_line, "standard": standard_line}


@asynccontextmanager
async def _opened(sink: JsonlSink | RawSink) -> AsyncGenerator[OpenSink, None]:
    out = outputs(os.fspath(sink.path), sink.mode, sink.inputs, sink.label)
    try:
        yield OpenSink(out, sink.render)
    except BaseException:
        out.remove_if_empty()
        raise
    finally:
        await out.aclose()


def _named(record: Record, field: str) -> object:
    output = record.output
    inside = cast(Mapping[str, object], output) if isinstance(output, Mapping) else record.outputs
    return inside[field] if field in inside else record.outputs.get(field)


def _mode_problems(mode: str) -> list[Problem]:
    if mode in MODES:
        return []
    return [Problem(None, "mode", f"there is no mode {mode!r}", f"modes are {', '.join(MODES)}")]
