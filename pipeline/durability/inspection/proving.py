"""Whether input that comes through a pipe again is what earlier runs have read of it.

A pipe cannot be read twice, so its records are compared as they come, before anything is begun with them: up to the
length that was read, those that are known pass as their ids, and those that are new are held. There are few of these in
the same input: what stood in the blocks that were read last. Of another input the first new record, the hash of the
bytes, or its end tells.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from pipeline.core.errors import JournalError
from pipeline.core.progress import Progress, Provable, Traced
from pipeline.core.record import Input
from pipeline.durability.disk.packing import Read, digest
from pipeline.durability.disk.store import Store
from pipeline.durability.journal import FILE
from pipeline.durability.resume.given import REMEDY
from pipeline.durability.resume.input import progress
from pipeline.durability.resume.known import Known

HELD: Final = 65536  #: new records that are held before the length is reached

_ROOTS: Final = "SELECT id, digest FROM root"
_ACCEPTED: Final = "SELECT 1 FROM event WHERE what = 'input changed'"


@dataclass(slots=True)
class Before:
    """What a journal knows of the input. What changes: the records that have not come again."""

    progress: Progress
    known: Known
    in_order: bool  #: known records come before new ones, as the input was never accepted as another one


def read_before(directory: Path, name: str) -> Before | None:
    """What was read of the input `name`, None if that is not known. Blocks. Raises `JournalError`."""
    with Store.looking(directory / FILE) as store:
        found = next((each for each in progress(store) if each.name == name), None)
        if found is None:
            return None
        known = Known((cast(str, id), cast(bytes, said)) for id, said in store.read(_ROOTS))
        return Before(found, known, not any(store.read(_ACCEPTED)))


async def proved(records: AsyncIterator[Input], before: Before, title: str) -> Replayed:
    """Read `records` up to where earlier runs came; return all of them. Raises `JournalError` for other ones."""
    assert isinstance(records, Provable)
    records.expect(before.progress.number, before.progress.read)
    passed: deque[Input] = deque()
    count = held = 0
    while not (found := records.reached()) or (before.in_order and before.known.left):
        record = await anext(records, None)
        if record is None:
            found = records.reached()
            break
        count += 1
        said = digest(record)
        if before.known.take(record.id or "", said) == "known":
            passed.append(Input(Read(said), record.id))
            continue
        held += 1
        if held > HELD or (before.in_order and before.known.left):
            raise _other(title, before.progress.read, f"its record {count:,} was not among them")
        passed.append(record)
    if found is None:
        raise _other(title, before.progress.read, f"its end comes after {records.taken:,}")
    if found != before.progress.digest:
        raise _other(title, before.progress.read, "they are others now")
    return Replayed(passed, records)


def _other(title: str, read: int, why: str) -> JournalError:
    return JournalError(f"{title}: is another input: of what came first, {read:,} bytes were read, and {why}\n{REMEDY}")


class Replayed:
    """Records that were read ahead, and those behind them. What changes: how many are left of the first."""

    def __init__(self, first: deque[Input], rest: AsyncIterator[Input]) -> None:
        self._first = first
        self._rest = rest

    def __aiter__(self) -> Replayed:
        return self

    async def __anext__(self) -> Input:
        return self._first.popleft() if self._first else await anext(self._rest)

    # -- satisfies `progress.Traced` ----------------------------------------------------------------------------

    def trace(self) -> None:
        """It is traced since before its first record."""

    @property
    def taken(self) -> int:
        return self._rest.taken if isinstance(self._rest, Traced) else 0

    def progress(self) -> Sequence[Progress]:
        return self._rest.progress() if isinstance(self._rest, Traced) else ()
