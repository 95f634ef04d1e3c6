"""Files and stdin, one after the other, to the records of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from anyio import to_thread

from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.inputs import guess_field, input_of_fields, input_of_text, why_no_prompt
from pipeline.core.record import Input
from stages.sources.files import STDIN, examine, title
from stages.sources.identity import Identity
from stages.sources.parsed import Parsed
from stages.sources.reading import OpenFile
from stages.sources.sniff import FORMATS, Format


@dataclass(frozen=True, slots=True)
class Inputs:
    """The records of files and of stdin (`-`), in this order; a source that can be opened for any number of runs.

    `format` auto goes by each file's name, else by its first line. `field` names the prompt of a structured record and
    `id_field` its id. `limit` ends the input after so many records. Of a record longer than `max_record_bytes` only
    the start is kept. `notice` is told, in sentences for people, what was guessed and what was skipped.

    A record that cannot be read is an `Input` with a `defect`. Opening raises one `SourceError` for all the files that
    cannot be read at all; what only shows later (a pipe in UTF-16, a disk that fails) is raised by the iterator.
    """

    paths: tuple[str, ...] = (STDIN,)
    format: Format | Literal["auto"] = "auto"
    field: str | None = None
    id_field: str | None = None
    limit: int | None = None
    max_record_bytes: int = 4 * 1024 * 1024
    notice: Callable[[str], None] | None = dataclasses.field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        if not self.paths:
            problems.append(Problem(None, "paths", "no input is named", "'-' is stdin"))
        if self.format != "auto" and self.format not in FORMATS:
            hint = f"formats are auto, {', '.join(FORMATS)}"
            problems.append(Problem(None, "format", f"there is no input format {self.format!r}", hint))
        if self.limit is not None and self.limit < 0:
            problems.append(Problem(None, "limit", f"cannot be {self.limit}", "a number of records, or none"))
        if self.max_record_bytes < 1:
            message = f"cannot be {self.max_record_bytes}"
            problems.append(Problem(None, "max_record_bytes", message, "bytes, at least 1"))
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenInputs]:
        """Open the inputs for one run."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenInputs, None]:
        await to_thread.run_sync(partial(examine, self.paths, self.format, self.max_record_bytes))
        opened = OpenInputs(self)
        try:
            yield opened
        finally:
            opened.close()


@dataclass(frozen=True, slots=True)
class InputStatistics:
    """What was read so far."""

    records: int  #: yielded, defective ones included
    defects: int  #: records that could not be read
    blank_lines: int  #: lines skipped because nothing is on them
    bytes: int  #: taken from files and stdin, read-ahead included


class OpenInputs:
    """An iterator over the records. Reads a block when the last one is used up, and yields to others only then."""

    def __init__(self, definition: Inputs) -> None:
        self._definition = definition
        self._paths = iter(definition.paths)
        self._identity = Identity(definition.id_field)
        self._file: OpenFile | None = None
        self._parsed: Iterator[Parsed] = iter(())
        self._blank_lines = 0
        self._bytes = 0
        self._records = 0
        self._defects = 0
        self._tell_field = False

    def __aiter__(self) -> OpenInputs:
        return self

    async def __anext__(self) -> Input:
        if self._records == self._definition.limit:
            self.close()
            raise StopAsyncIteration
        while (parsed := next(self._parsed, None)) is None:
            if not await self._advance():
                raise StopAsyncIteration
        self._records += 1
        record = self._input(parsed)
        if record.defect is not None:
            self._defects += 1
        return record

    def statistics(self) -> InputStatistics:
        """Return what was read so far."""
        blank = self._blank_lines + (self._file.blank_lines if self._file else 0)
        return InputStatistics(self._records, self._defects, blank, self._bytes)

    def close(self) -> None:
        """Close what is open; the iterator then ends. May be called twice."""
        self._parsed = iter(())
        self._paths = iter(())
        self._leave_file()

    async def _advance(self) -> bool:
        """Make more parsed records available: from the next block, or the next file. False at the end of all."""
        if self._file is None:
            path = next(self._paths, None)
            if path is None:
                return False
            self._file = OpenFile(path, self._definition.format, self._definition.max_record_bytes, self._tell)
            self._tell_field = self._definition.field is None
        parsed, size = await self._file.next_block()
        self._bytes += size
        if parsed is None:
            self._leave_file()
            self._parsed = iter(())
        else:
            self._parsed = parsed
        return True

    def _leave_file(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        file.close()
        self._blank_lines += file.blank_lines
        if file.blank_lines:
            lines = "line" if file.blank_lines == 1 else "lines"
            self._tell(f"{title(file.path)}: {file.blank_lines:,} blank {lines} skipped")

    def _input(self, parsed: Parsed) -> Input:
        value = parsed.value
        if parsed.defect is not None:
            return Input(value, self._identity.of_bytes(parsed.raw), defect=parsed.defect)
        if isinstance(value, str):
            return input_of_text(value, id=self._identity.of_content(value))
        if self._tell_field:
            self._tell_guess(value)
        place = f"{title(self._file.path) if self._file else ''}, line {parsed.line}"
        id, id_defect = self._identity.of_fields(value, place)
        record = input_of_fields(value, self._definition.field, id=id)
        defect = id_defect or record.defect
        if defect is None:
            return record
        located = ItemError(f"{place}: {defect.message}", type=defect.type)
        return Input(value, id, fields=value, defect=located)

    def _tell_guess(self, fields: dict[str, object]) -> None:
        self._tell_field = False
        guess = guess_field(fields)
        if self._file is not None:
            found = why_no_prompt(fields) if guess is None else f"the prompt is the field {guess!r}"
            self._tell(f"{title(self._file.path)}: {found}")

    def _tell(self, sentence: str) -> None:
        if self._definition.notice is not None:
            self._definition.notice(sentence)
