"""Roots that had ended are opened again: their lines are taken back, and of their facts what no longer holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, TypeAlias, cast

from pipeline.core.codec import decode
from pipeline.core.errors import JournalError
from pipeline.core.names import join_names, suggestion
from pipeline.core.pipeline import Pipeline
from pipeline.durability.downstream import Downstream, downstream, names_of
from pipeline.durability.fingerprint.changes import Change
from pipeline.durability.projection import TAKEN_BACK
from pipeline.durability.schema import Value, crc
from pipeline.durability.store import Store

Statement: TypeAlias = tuple[str, Sequence[Value]]

#: the kind of a fact that says that a root was opened again, and has not ended since
REOPENED: Final = "reopened"

#: of open roots those that were opened again
ONLY: Final = f" AND seq IN (SELECT root FROM fact WHERE path = '[]' AND kind = '{REOPENED}')"

_NOTED: Final = {"path": "'[]'", "kind": f"'{REOPENED}'", "ordinal": "0", "value": "CAST('true' AS BLOB)"}
_NOTE: Final = (
    f"INSERT OR REPLACE INTO fact SELECT root, {', '.join(_NOTED.values())}, {crc('fact', **_NOTED)} FROM settled"
)
_FAILED: Final = "SELECT root FROM settled WHERE status = 'failed'"
_SETTLED: Final = "SELECT root FROM settled"


@dataclass(frozen=True, slots=True)
class Reopen:
    """What a run with a journal does again although it was done.

    `failed`: records that failed, with what they have; a partial one has not. `only_failed`: and nothing else: what is
    open stays as it is, and the source is not read. `from_stage`: all records, from the stage of this name on; what
    comes before it is kept.
    """

    failed: bool = False
    only_failed: bool = False
    from_stage: str | None = None


AS_IT_IS: Final = Reopen()


class Again(NamedTuple):
    """What is taken back, and how much of it."""

    statements: tuple[Statement, ...] = ()
    roots: int = 0
    lines: int = 0
    facts: int = 0

    def __add__(self, other: object) -> Again:
        if not isinstance(other, Again):
            return NotImplemented
        statements = (*self.statements, *other.statements)
        return Again(statements, self.roots + other.roots, self.lines + other.lines, self.facts + other.facts)


def failed_again(store: Store) -> Again:
    """Open the roots that failed. The answers they had are kept, except those that said that a call has failed."""
    ended_badly = (
        f"root IN ({_FAILED}) AND (kind = 'join' OR"
        " (kind = 'call' AND json_type(CAST(value AS TEXT), '$.error') IS NOT NULL) OR"
        " (kind = 'batched' AND json_extract(CAST(value AS TEXT), '$.status') = 'failed'))"
    )
    facts = _count(store, f"SELECT count(*) FROM fact WHERE {ended_badly}")
    return Again(((f"DELETE FROM fact WHERE {ended_badly}", ()),), facts=facts) + _open(store, _FAILED)


def redone_from(store: Store, pipeline: Pipeline, name: str) -> Again:
    """Open all roots, without what the stage `name` and those after it have said. Raises `JournalError`."""
    found = downstream(pipeline, name)
    if found is None:
        known = names_of(pipeline)
        hint = suggestion(name, known) or f"there are: {join_names(known)}"
        raise JournalError(f"there is no stage {name!r} in this pipeline; {hint}")
    return _without(store, found.has) + _open(store, _SETTLED)


def changed(store: Store, pipeline: Pipeline, changes: Sequence[Change]) -> Again:
    """Open all roots after changes. A call is known by what it asks, so one that asks the same keeps its answer. What
    was decided by or after what has changed is decided again."""
    stages = [change.stage for change in changes if change.effect == "result"]
    found = [None if name is None else downstream(pipeline, name) for name in stages]
    known = Downstream()
    for each in found:
        known |= each or Downstream()
    whole = any(each is None for each in found)  # the pipeline itself, or a stage that is gone

    def stale(path: tuple[str, ...], kind: str) -> bool:
        return kind != "call" and (whole or known.has(path, kind))

    return _without(store, stale) + _open(store, _SETTLED)


def withdrawn(store: Store, seqs: Sequence[int]) -> Again:
    """Forget roots, with all they have: the input has them no more, or says something else under their name."""
    statements: list[Statement] = []
    lines = 0
    for seq in seqs:
        lines += _count(store, f"SELECT count(*) FROM line WHERE root = {seq}")
        statements += [(f"DELETE FROM {table} WHERE root = ?", (seq,)) for table in ("fact", "line", "settled")]
        statements.append(("DELETE FROM root WHERE seq = ?", (seq,)))
    return Again(tuple(statements), len(seqs), lines) + Again((TAKEN_BACK,) if lines else ())


def _open(store: Store, roots: str) -> Again:
    count = _count(store, f"SELECT count(*) FROM ({roots})")
    lines = _count(store, f"SELECT count(*) FROM line WHERE root IN ({roots})")
    statements: list[Statement] = [
        (f"UPDATE root SET crashes = 0 WHERE seq IN ({roots})", ()),
        (f"{_NOTE} WHERE root IN ({roots})", ()),
        (f"DELETE FROM line WHERE root IN ({roots})", ()),
        (f"DELETE FROM settled WHERE root IN ({roots})", ()),
    ]
    return Again(tuple(statements), count, lines) + Again((TAKEN_BACK,) if lines else ())


def _without(store: Store, stale: Callable[[tuple[str, ...], str], bool]) -> Again:
    """Take back the facts that `stale` names by path and kind."""

    @cache
    def judge(path: str, kind: str) -> bool:
        return stale(_path(path), kind)

    facts = [
        row
        for row in store.read("SELECT root, path, kind, ordinal FROM fact")
        if row[2] != REOPENED and judge(cast(str, row[1]), cast(str, row[2]))
    ]
    delete = "DELETE FROM fact WHERE root = ? AND path = ? AND kind = ? AND ordinal = ?"
    return Again(tuple((delete, row) for row in facts), facts=len(facts))


def _path(text: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", decode(text.encode())))


def _count(store: Store, query: str) -> int:
    return cast(int, next(store.read(query))[0])
