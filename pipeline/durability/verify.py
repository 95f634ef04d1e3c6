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
from pipeline.core.targets import Names
from pipeline.durability.comparing import compare
from pipeline.durability.files import marks_of
from pipeline.durability.output import ERRORS, OUTPUT, Outlet
from pipeline.durability.projection import STALE, Mark
from pipeline.durability.store import Store

MOST_TOLD: Final = 10  #: examples of one fault

_OPEN: Final = "root NOT IN (SELECT root FROM settled)"


@dataclass(frozen=True, slots=True)
class FileProof:
    """One file, held against the lines that it is made of."""

    path: str
    bytes: int  #: that are known to be on the disk
    lines: int  #: of the journal in those
    to_come: int  #: lines that a resume will append
    more: int = 0  #: bytes that are there beyond, which a resume will cut off

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


def _files(store: Store, errors: Path) -> tuple[tuple[FileProof, ...], list[str]]:
    """Each file that is what was written, and what is wrong with the others."""
    said = {cast(str, key): cast(str, value) for key, value in store.read("SELECT key, value FROM meta")}
    outlets = {
        OUTPUT: Outlet(OUTPUT, Names(said.get(OUTPUT, "")), "append", ()),
        ERRORS: Outlet(ERRORS, Names(said.get(ERRORS) or str(errors), plain=True), "append", ()),
    }
    found: list[FileProof] = []
    wrong: list[str] = []
    for name, mark in marks_of(store):
        kind, _, target = name.partition("/")
        try:
            found.append(_file(store, outlets[kind], target, mark))
        except JournalError as error:
            wrong.append(str(error).replace("; nothing was called", ""))
    return tuple(found), wrong


def _file(store: Store, outlet: Outlet, target: str, mark: Mark) -> FileProof:
    path = outlet.file(target)
    with closing(outlet.lines(store, target, 0)) as lines:
        compare(path, mark, lines)
    there = to_come = 0
    for line in outlet.lines(store, target, 0):
        there, to_come = (there + 1, to_come) if line.number <= mark.number else (there, to_come + 1)
    size = Path(path).stat().st_size if Path(path).exists() else 0
    if mark.number == STALE:  # all of it will be made anew
        return FileProof(path, 0, 0, to_come)
    return FileProof(path, mark.size, there, to_come, max(0, size - mark.size))


def _one(store: Store, query: str) -> int:
    return cast(int, next(store.read(query))[0])
