"""Whether the input of a run is what earlier runs have read, before anything is asked of anybody."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Mapping, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final, NamedTuple, cast

from anyio import to_thread
from anyio.lowlevel import checkpoint

from pipeline.core.errors import JournalError
from pipeline.core.feeder import as_input
from pipeline.core.identity import Contents
from pipeline.core.ports import Source
from pipeline.core.progress import Progress, Rereadable
from pipeline.core.record import Input
from pipeline.core.streams import BURST, BURST_SECONDS
from pipeline.durability.disk.packing import digest
from pipeline.durability.disk.store import Store
from pipeline.durability.resume.given import REMEDY

#: what a record is called that has come under a known id and says something else
EDITED = "its id was given to a record that said something else"


_PROGRESS: Final = "SELECT number, name, read, digest, ended FROM source ORDER BY number"


class InputChange(NamedTuple):
    """What has become of the input, and what follows from it.

    Records that are finished and that the input has no more, or says otherwise without an id, stay in the output: they
    were asked for and paid. The index of a record that is new is its place in the input as it is now, so it may be that
    of one of those.
    """

    said: tuple[str, ...] = ()  #: what has changed, a sentence for each file
    edited: tuple[int, ...] = ()  #: roots whose id says something else now: they are forgotten and come anew
    gone: tuple[int, ...] = ()  #: open roots that the input has no more: they are not wanted any more
    left: int = 0  #: finished roots that the input has no more

    def as_json(self) -> dict[str, object]:
        """What a journal keeps of it."""
        return {"said": list(self.said), "edited": len(self.edited), "gone": len(self.gone), "left": self.left}


async def examine(store: Store, source: object, *, accept: bool) -> InputChange:
    """Compare the files of `source` with what is known to have been read. Raises `JournalError` when more than their
    end has changed, unless that is to be accepted: then it is read through, to know which records still stand in it."""
    before = await to_thread.run_sync(progress, store)
    said: tuple[str, ...] = ()
    if before and isinstance(source, Rereadable):
        said = tuple(await to_thread.run_sync(source.differences, before))
    if not accept:
        if said:
            lines = "\n".join(f"  {each}" for each in said)
            raise JournalError(f"{store.path.parent}: the input has changed:\n{lines}\n{REMEDY}")
        return InputChange()
    if isinstance(source, Rereadable):
        again = source.again()
        return InputChange(said) if again is None or not said else await _matched(store, again, said)
    if isinstance(source, list | tuple):
        return await _matched(store, cast("Sequence[object]", source), ())
    return InputChange(said)


def only_failed(store: Store, change: InputChange) -> InputChange:
    """Of a change what is about records that failed: they come anew, and all else stays as it is."""
    failed = {seq for (seq,) in store.read("SELECT root FROM settled WHERE status = 'failed'")}
    return change._replace(edited=tuple(seq for seq in change.edited if seq in failed), gone=())


def progress(store: Store) -> list[Progress]:
    """How far earlier runs have read their files."""
    return [
        Progress(cast(int, number), cast(str, name), cast(int, read), cast(bytes, digest), bool(ended))
        for number, name, read, digest, ended in store.read(_PROGRESS)
    ]


async def _matched(store: Store, source: Source | Sequence[object], said: tuple[str, ...]) -> InputChange:
    """Match what earlier runs have admitted with all that the input says now."""
    present: dict[str, set[bytes]] = {}
    contents = Contents()
    burst, since = 0, monotonic()
    async with _records(source) as records:
        async for value in records:
            record = as_input(value)
            id = contents.of_content(record.value).id if record.id is None else record.id
            present.setdefault(id, set()).add(digest(record))
            burst += 1
            if burst >= BURST or monotonic() - since > BURST_SECONDS:
                await checkpoint()
                burst, since = 0, monotonic()
    edited, gone, left = await to_thread.run_sync(_missing, store, present)
    return InputChange(said, edited, gone if said else (), left)


def _missing(store: Store, present: Mapping[str, set[bytes]]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """The roots whose id says something else in the input now, the open ones that are not in it, and how many are not
    in it and finished. Blocks."""
    roots = "SELECT seq, id, digest, seq IN (SELECT root FROM settled) FROM root ORDER BY seq"
    edited: list[int] = []
    gone: list[int] = []
    left = 0
    for seq, id, known, settled in store.read(roots):
        now = present.get(cast(str, id))
        if now is None:
            if settled:
                left += 1
            else:
                gone.append(cast(int, seq))
        elif known not in now:
            edited.append(cast(int, seq))
    return tuple(edited), tuple(gone), left


@asynccontextmanager
async def _records(source: Source | Sequence[object]) -> AsyncGenerator[AsyncIterable[object]]:
    if isinstance(source, Source):
        async with source.open() as records:
            yield records
    else:
        yield _each(source)


async def _each(values: Sequence[object]) -> AsyncGenerator[object]:
    for value in values:
        yield value


def edited(record: Input) -> JournalError:
    """The error of a record that has come under a known id."""
    remedy = "give it another id; --accept-changes (accept_changes=True) takes it as edited where the input is a file"
    return JournalError(f"record {record.id!r}: {EDITED} in an earlier run with this journal; {remedy}")
