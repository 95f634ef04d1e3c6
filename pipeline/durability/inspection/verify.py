"""The proof that a run has lost nothing, from its journal and its files, which are only read.

roots = settled + open; lines = records of settled, unskipped roots; files = lines, byte for byte
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from pipeline.core.codec import decode
from pipeline.core.errors import JournalError
from pipeline.core.record import STATUSES
from pipeline.core.recovered import left_over
from pipeline.core.targets import Names
from pipeline.durability.disk.store import Store
from pipeline.durability.outputs.comparing import Changed, compare
from pipeline.durability.outputs.files import marks_of
from pipeline.durability.outputs.output import ERRORS, OUTPUT, Outlet
from pipeline.durability.outputs.projection import Mark

MOST_TOLD: Final = 10  #: examples of one fault

_OPEN: Final = "root NOT IN (SELECT root FROM settled)"


@dataclass(frozen=True, slots=True)
class FileProof:
    """One file, held against the lines that it is made of."""

    path: str
    bytes: int  #: that are known to be on the disk
    lines: int  #: of the journal in those
    to_come: int  #: lines that a resume will append
    more: int = 0  #: bytes that are there beyond: a resume cuts its own off, and refuses others

    def __str__(self) -> str:
        said = f"{self.path}: {self.lines:,} lines, {self.bytes:,} bytes, as written"
        said += f"; {self.to_come:,} lines are not known to be in it, a resume appends them" if self.to_come else ""
        return said + (f"; {self.more:,} bytes are behind those" if self.more else "")


@dataclass(frozen=True, slots=True)
class Proof:
    """What a journal and its files say. `problems` is empty if all laws hold."""

    roots: int
    settled: Mapping[str, int]  #: by status
    open: int
    lines: int
    lines_of_open: int  #: of roots that have left some of their records
    in_batches: int  #: settled roots whose record is one of several roots
    begun: int  #: attempts that have no end in the journal
    left: int = 0  #: finished roots that the input did not have any more when it was last compared
    files: tuple[FileProof, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        settled = ", ".join(f"{count:,} {status}" for status, count in self.settled.items()) or "none"
        ended, closed = sum(self.settled.values()), self.lines - self.lines_of_open
        said = [
            f"roots: {self.roots:,} = {ended:,} settled ({settled}) + {self.open:,} open",
            f"lines: {self.lines:,} = {closed:,} of settled roots + {self.lines_of_open:,} of open ones",
        ]
        if self.in_batches:
            said.append(f"       {self.in_batches:,} settled roots have theirs together with others")
        if self.begun:
            said.append(f"attempts: {self.begun:,} have no end in the journal; they may have been paid")
        said += [left_over(self.left)] if self.left else []
        said += [str(file) for file in self.files]
        said += [f"WRONG: {problem}" for problem in self.problems]
        return "\n".join([*said, "every law holds" if self.holds else "the run does not balance"])


def verify(path: Path, errors: Path) -> Proof:
    """Hold the journal at `path`, with its dead letters at `errors` if it does not say where they are, to its laws.
    Changes nothing; blocks. Raises `JournalError` for what is no journal."""
    with Store.looking(path) as store:
        list(store.read("BEGIN"))  # one moment of it, if somebody writes
        damage = [cast(str, text) for (text,) in store.read("PRAGMA integrity_check(10)") if text != "ok"]
        if damage:
            return Proof(0, {}, 0, 0, 0, 0, 0, problems=tuple(f"{path}: {text}" for text in damage))
        counted: dict[str, int] = dict(
            cast("list[tuple[str, int]]", list(store.read("SELECT status, count(*) FROM settled GROUP BY status")))
        )
        settled = {status: counted[status] for status in (*STATUSES, *counted) if status in counted}
        roots, lines = _one(store, "SELECT count(*) FROM root"), _one(store, "SELECT count(*) FROM line")
        of_open = _one(store, f"SELECT count(*) FROM line WHERE {_OPEN}")
        open_roots = _one(store, "SELECT count(*) FROM root WHERE seq NOT IN (SELECT root FROM settled)")
        alone, shared = _without_line(store)
        files, changed = _files(store, errors)
        return Proof(
            roots,
            settled,
            open_roots,
            lines,
            of_open,
            shared,
            _one(store, "SELECT count(*) FROM attempt WHERE usage IS NULL"),
            _left(store),
            files,
            (*_broken(store), *alone, *changed),
        )


_LAWS: Final = {
    "has ended and was never admitted": "SELECT root, root FROM settled WHERE root NOT IN (SELECT seq FROM root)",
    "has a line and was never admitted": "SELECT id, root FROM line WHERE root NOT IN (SELECT seq FROM root)",
    "was skipped and has a line": (
        "SELECT id, root FROM line JOIN settled USING (root) WHERE settled.status = 'skipped'"
    ),
    "has its record and is open": f"SELECT id, root FROM line WHERE part = '' AND {_OPEN}",
    "has ended otherwise than its record says": (
        "SELECT id, root FROM line JOIN settled USING (root) WHERE part = '' AND line.status <> settled.status"
    ),
    "failed without a dead letter, or has one and did not": (
        "SELECT id, root FROM line WHERE (status = 'failed') <> (dead IS NOT NULL)"
    ),
}


def _left(store: Store) -> int:
    """How many finished roots the input had no more when a change of it was last accepted."""
    query = "SELECT value FROM event WHERE what = 'input changed' ORDER BY id DESC LIMIT 1"
    for (value,) in store.read(query):
        return cast("Mapping[str, int]", decode(cast(str, value).encode())).get("left", 0)
    return 0


def _broken(store: Store) -> Iterator[str]:
    """Each law that some root breaks."""
    for what, query in _LAWS.items():
        found = list(store.read(f"{query} ORDER BY 2 LIMIT {MOST_TOLD + 1}"))
        for id, seq in found[:MOST_TOLD]:
            yield f"record {id} (root {seq}) {what}"
        if len(found) > MOST_TOLD:
            yield f"and there are more that are so: {what}"


def _without_line(store: Store) -> tuple[list[str], int]:
    """The settled roots without a record, as problems, and how many have one together with others."""
    query = (
        "SELECT seq, id FROM root JOIN settled ON root.seq = settled.root WHERE status <> 'skipped'"
        " AND seq NOT IN (SELECT root FROM line) ORDER BY seq"
    )
    lacking = {cast(str, id): cast(int, seq) for seq, id in store.read(query)}
    shared = 0
    for id in _inputs(store) if lacking else ():
        known = id if id in lacking else id.rpartition("#")[0]
        while known and known not in lacking:
            known = known.rpartition("#")[0]
        shared += lacking.pop(known, None) is not None
    told = [f"record {id} (root {seq}) has ended and has no line" for id, seq in list(lacking.items())[:MOST_TOLD]]
    return told, shared


def _inputs(store: Store) -> Iterator[str]:
    """The ids of those whose record is one of several roots."""
    for (line,) in store.read("SELECT coalesce(record, data) FROM line WHERE part <> ''"):
        if b'"inputs":' in cast(bytes, line):
            yield from cast("Mapping[str, list[str]]", decode(cast(bytes, line))).get("inputs", ())


def refuse_changed_files(path: Path, errors: Path) -> None:
    """Raise `JournalError` if a file that is made of the journal at `path` is gone, or not what was written. What
    others have written behind that is nobody's concern, because nothing more comes."""
    with Store.looking(path) as store:
        outlets = _outlets(store, errors)
        for name, mark in marks_of(store):
            kind, _, target = name.partition("/")
            _file(store, outlets[kind], target, mark)


def _files(store: Store, errors: Path) -> tuple[tuple[FileProof, ...], list[str]]:
    """Each file that is what was written, and what is wrong with the others."""
    outlets = _outlets(store, errors)
    found: list[FileProof] = []
    wrong: list[str] = []
    for name, mark in marks_of(store):
        kind, _, target = name.partition("/")
        try:
            found.append(_file(store, outlets[kind], target, mark))
        except JournalError as error:
            wrong.append(error.what if isinstance(error, Changed) else str(error))
    return tuple(found), wrong


def _outlets(store: Store, errors: Path) -> Mapping[str, Outlet]:
    """The outputs that a journal says that it has."""
    said = {cast(str, key): cast(str, value) for key, value in store.read("SELECT key, value FROM meta")}
    return {
        OUTPUT: Outlet(OUTPUT, Names(said.get(OUTPUT, "")), "append", ()),
        ERRORS: Outlet(ERRORS, Names(said.get(ERRORS) or str(errors), plain=True), "append", ()),
    }


def _file(store: Store, outlet: Outlet, target: str, mark: Mark) -> FileProof:
    path = outlet.file(target)
    with closing(outlet.lines(store, target, 0)) as lines:
        compare(path, mark, lines, behind=False)
    there = to_come = 0
    for line in outlet.lines(store, target, 0):
        there, to_come = (there + 1, to_come) if line.number <= mark.number else (there, to_come + 1)
    size = Path(path).stat().st_size if Path(path).exists() else 0
    if mark.is_stale:  # all of it will be made anew
        return FileProof(path, 0, 0, to_come)
    return FileProof(path, mark.size, there, to_come, max(0, size - mark.size))


def _one(store: Store, query: str) -> int:
    return cast(int, next(store.read(query))[0])
