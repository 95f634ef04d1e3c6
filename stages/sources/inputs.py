"""Files and stdin, one after the other, to the records of a run."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, NoReturn

from anyio import to_thread

from pipeline.core.errors import DefinitionError, ItemError, Problem, RunStopped, SourceError
from pipeline.core.inputs import guess_field, input_of_fields, input_of_text, why_no_prompt
from pipeline.core.progress import Progress
from pipeline.core.record import Input
from stages.sources.charset import charset
from stages.sources.comparing import difference
from stages.sources.files import STDIN, examine, title
from stages.sources.identity import Identity
from stages.sources.parsed import Origin, Parsed
from stages.sources.reading import OpenFile
from stages.sources.share import share_of
from stages.sources.sniff import FORMATS, Format
from stages.sources.tolerance import Tolerance


@dataclass(frozen=True, slots=True)
class Inputs:
    """The records of files and of stdin (`-`), in this order; a source that can be opened for any number of runs.

    `format` auto goes by each file's name, else by its first line. What is compressed with gzip is unpacked as it is
    read. `field` names the prompt of a structured record and `id_field` its id. `limit` ends the input after so many
    records. `shard` (i, n) gives the i-th of n shares of those, chosen by id or content, each record with its index in
    the whole input. Of a record longer than `max_record_bytes` only the start is kept. `encoding` is that of every
    input; `keep_empty` makes blank lines of text prompts. `notice` is told, in sentences for people, what was guessed
    and what was skipped.

    A record that cannot be read is an `Input` with a `defect`; more of them than `max_bad_items` (a count, or a float
    for a share of those read; None is 100, or 10 % if that is more) end the run with `RunStopped`, and with `strict`
    the first one ends it. Opening raises one `SourceError` for all the files that cannot be read at all; what only
    shows later (a pipe in UTF-16, a disk that fails, a file that was changed meanwhile) is raised by the iterator.
    """

    paths: tuple[str, ...] = (STDIN,)
    format: Format | Literal["auto"] = "auto"
    field: str | None = None
    id_field: str | None = None
    limit: int | None = None
    max_record_bytes: int = 4 * 1024 * 1024
    notice: Callable[[str], None] | None = dataclasses.field(default=None, compare=False, repr=False)
    encoding: str = "utf-8"
    keep_empty: bool = False
    strict: bool = False
    max_bad_items: int | float | None = None
    shard: tuple[int, int] | None = None

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
        if self.max_bad_items is not None and not self.max_bad_items >= 0:
            message = f"cannot be {self.max_bad_items}"
            problems.append(Problem(None, "max_bad_items", message, "a number of records, or a share such as 0.05"))
        if self.shard is not None and not 1 <= self.shard[0] <= self.shard[1]:
            message = f"cannot be {self.shard[0]} of {self.shard[1]}"
            problems.append(Problem(None, "shard", message, "the first of four shares is 1 of 4, the last 4 of 4"))
        try:
            charset(self.encoding)
        except ValueError as error:
            problems.append(Problem(None, "encoding", str(error)))
        if problems:
            raise DefinitionError(*problems)

    def open(self) -> AbstractAsyncContextManager[OpenInputs]:
        """Open the inputs for one run."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[OpenInputs, None]:
        await to_thread.run_sync(partial(examine, self.paths, self.format, self.origin))
        opened = OpenInputs(self)
        try:
            yield opened
        finally:
            opened.close()

    def differences(self, before: Sequence[Progress]) -> tuple[str, ...]:
        """Satisfies `Rereadable`."""
        separators = b"\0" if self.format == "nul" else b"\n"
        return tuple(found for each in before if (found := difference(self.paths, each, separators)) is not None)

    def again(self) -> Inputs | None:
        """The same without a word, unless a part of it can be read once only."""
        if any(path == STDIN or not os.path.isfile(path) for path in self.paths):
            return None
        return dataclasses.replace(self, notice=None, strict=False, max_bad_items=math.inf)

    def origin(self, path: str) -> Origin:
        """Return how the input at `path` is read."""
        rules = (self.max_record_bytes, charset(self.encoding), self.keep_empty, self.strict)
        return Origin(title(path), *rules, self.notice)


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
        self._paths = iter(enumerate(definition.paths))
        self._number = 0  #: of the file that is being read
        self._traced = False
        self._traces: list[Progress] = []  #: of the files before it
        self._expected_of, self._expected = -1, -1  #: the input that is looked at, and after how many bytes
        self._reached: bytes | None = None  #: what it was then
        self._identity = Identity(definition.id_field)
        self._tolerance = Tolerance.of(definition.max_bad_items)
        self._file: OpenFile | None = None
        self._parsed: Iterator[Parsed] = iter(())
        self._blank_lines = 0
        self._bytes = 0
        self._read = 0  #: records, those of other shares included
        self._records = 0
        self._defects = 0
        self._changed: list[str] = []
        self._tell_field = False
        self._over = False

    def __aiter__(self) -> OpenInputs:
        return self

    async def __anext__(self) -> Input:
        if self._tolerance.exceeded(self._defects, self._records):
            self.close()
            bad = f"{self._defects:,} of {self._records:,} records could not be read"
            raise RunStopped(f"{bad}, max_bad_items is {self._tolerance}", cause_kind="failures")
        while True:
            if self._read == self._definition.limit:
                self._finish()
            while (parsed := next(self._parsed, None)) is None:
                if not await self._advance():
                    self._finish()
            record, name = self._input(parsed)
            index = self._read
            self._read += 1
            shard = self._definition.shard
            if shard is None:
                return self._yielded(record)
            if share_of(name, shard[1]) == shard[0]:
                return self._yielded(record._replace(position=index))

    def trace(self) -> None:
        """Satisfies `Traced`."""
        self._traced = True

    def expect(self, number: int, length: int) -> None:
        """Satisfies `Provable`."""
        self._traced, self._expected_of, self._expected = True, number, length

    def reached(self) -> bytes | None:
        """Satisfies `Provable`."""
        if self._reached is None and self._file is not None:
            self._reached = self._file.reached()
        return self._reached

    @property
    def taken(self) -> int:
        """Bytes taken so far."""
        return self._bytes + (self._file.taken if self._file else 0)

    def progress(self) -> list[Progress]:
        """How far each file was read that was begun."""
        found = None if self._file is None else self._file.progress(self._number)
        return [*self._traces, *([] if found is None else [found])]

    def statistics(self) -> InputStatistics:
        """Return what was read so far."""
        blank = self._blank_lines + (self._file.blank_lines if self._file else 0)
        return InputStatistics(self._records, self._defects, blank, self.taken)

    def close(self) -> None:
        """Close what is open; the iterator then ends. May be called twice."""
        self._parsed = iter(())
        self._paths = iter(())
        self._leave_file()

    async def _advance(self) -> bool:
        """Make more parsed records available: from the next block, or the next file. False at the end of all."""
        if self._file is None:
            self._number, path = next(self._paths, (0, None))
            if path is None:
                return False
            origin = self._definition.origin(path)
            expected = self._expected if self._number == self._expected_of else -1
            self._file = OpenFile(path, self._definition.format, origin, traced=self._traced, expected=expected)
            self._tell_field = self._definition.field is None
        parsed = await self._file.next_block()
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
        self._reached = self._reached or file.reached()
        change, progress = file.change(), file.progress(self._number)
        self._traces += [] if progress is None else [progress]
        file.close()
        name = title(file.path)
        self._bytes += file.taken
        self._blank_lines += file.blank_lines
        if file.blank_lines:
            lines = "line" if file.blank_lines == 1 else "lines"
            self._tell(f"{name}: {file.blank_lines:,} blank {lines} skipped")
        if change is not None and change.harmful:
            self._changed.append(f"{name}: {change.text}; run it again when nobody writes to it")
        elif change is not None:
            self._tell(f"{name}: {change.text}")

    def _finish(self) -> NoReturn:
        """End the iteration. What became of a file on the way ends the run when all inputs have been read."""
        self.close()
        shard = self._definition.shard
        if shard is not None and not self._over:
            records = "record" if self._read == 1 else "records"
            self._tell(f"share {shard[0]} of {shard[1]}: {self._records:,} of {self._read:,} {records}")
        self._over = True
        changed, self._changed = self._changed, []
        if changed:
            raise SourceError("\n".join(changed))
        raise StopAsyncIteration

    def _yielded(self, record: Input) -> Input:
        self._records += 1
        if record.defect is not None:
            if self._definition.strict:
                self.close()
                raise SourceError(f"{record.defect.message} (strict: the first such record ends the run)")
            self._defects += 1
        return record

    def _input(self, parsed: Parsed) -> tuple[Input, str]:
        """Return the record, and the name by which its share is chosen."""
        value = parsed.value
        if parsed.defect is not None:
            id, name = self._identity.of_bytes(parsed.raw)
            return Input(value, id, defect=parsed.defect), name
        if isinstance(value, str):
            id, name = self._identity.of_content(value)
            return input_of_text(value, id=id), name
        if self._tell_field:
            self._tell_guess(value)
        place = f"{title(self._file.path) if self._file else ''}, line {parsed.line}"
        (id, name), id_defect = self._identity.of_fields(value, place)
        record = input_of_fields(value, self._definition.field, id=id)
        defect = id_defect or record.defect
        if defect is None:
            return record, name
        located = ItemError(f"{place}: {defect.message}", type=defect.type)
        return Input(value, id, fields=value, defect=located), name

    def _tell_guess(self, fields: dict[str, object]) -> None:
        self._tell_field = False
        guess = guess_field(fields)
        if self._file is not None:
            found = why_no_prompt(fields) if guess is None else f"the prompt is the field {guess!r}"
            self._tell(f"{title(self._file.path)}: {found}")

    def _tell(self, sentence: str) -> None:
        if self._definition.notice is not None:
            self._definition.notice(sentence)
