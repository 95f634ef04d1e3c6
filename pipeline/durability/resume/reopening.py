"""Roots that had ended are opened again: their lines are taken back, and of their facts what no longer holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from pipeline.core.codec import decode
from pipeline.core.errors import JournalError
from pipeline.core.names import join_names, suggestion
from pipeline.core.pipeline import Pipeline
from pipeline.durability.disk.schema import REOPENED, Statement, Value, crc
from pipeline.durability.disk.store import Store
from pipeline.durability.fingerprint.changes import Change
from pipeline.durability.outputs.projection import ANSWERS_TAKEN_BACK, TAKEN_BACK
from pipeline.durability.resume.downstream import Downstream, downstream, names_of
from pipeline.durability.resume.failures import taken_back

Reason: TypeAlias = Literal["failed", "from", "changed"]

#: of open roots those that were opened again because they had failed
ONLY: Final = (
    f" AND seq IN (SELECT root FROM fact WHERE path = '[]' AND kind = '{REOPENED}' AND"
    " CAST(value AS TEXT) = '\"failed\"')"
)
_FAILED: Final = "SELECT root FROM settled WHERE status = 'failed'"
_SETTLED: Final = "SELECT root FROM settled"
_DELETE: Final = "DELETE FROM fact WHERE root = ? AND path = ? AND kind = ? AND ordinal = ?"

#: The roots that have lines from number `first` on, and those that are in a record of several.
_BEHIND: Final = (
    "SELECT root FROM line WHERE number >= {first} UNION SELECT seq FROM root JOIN"
    " (SELECT member.value AS id FROM line, json_each(CAST(coalesce(record, data) AS TEXT), '$.inputs') AS member"
    " WHERE number >= {first} AND part <> '') AS named"
    " ON root.id IN (named.id, rtrim(rtrim(named.id, '0123456789'), '#'))"
)


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


def failed_again(store: Store, pipeline: Pipeline) -> Again:
    """Open the roots that failed, with the answers they had but for those that they failed with.

    An ordered output is a sequence, so the roots behind the first one that failed are opened too: what they say is in
    the journal, and their lines are written once more behind those that are new.
    """
    facts = [tuple(fact[:4]) for fact in taken_back(store, pipeline)]
    again = Again(tuple((_DELETE, fact) for fact in facts), facts=len(facts))
    first = _one(store, f"SELECT min(number) FROM line WHERE root IN ({_FAILED})") if pipeline.ordered else None
    if first is None:
        return again + _open(store, _FAILED, "failed")
    behind = f"SELECT root FROM settled WHERE status = 'failed' OR root IN ({_BEHIND.format(first=first)})"
    return again + _open(store, behind, "failed", lines=f"number >= {first}")


def redone_from(store: Store, pipeline: Pipeline, name: str) -> Again:
    """Open all roots, without what the stage `name` and those after it have said. Raises `JournalError`."""
    found = downstream(pipeline, name)
    if found is None:
        known = names_of(pipeline)
        hint = suggestion(name, known) or f"there are: {join_names(known)}"
        raise JournalError(f"there is no stage {name!r} in this pipeline; {hint}")
    return _without(store, found.has) + _open(store, _SETTLED, "from")


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

    return _without(store, stale) + _open(store, _SETTLED, "changed")


def withdrawn(store: Store, seqs: Sequence[int]) -> Again:
    """Forget roots, with all they have: the input has them no more, or says something else under their name."""
    statements: list[Statement] = []
    lines = 0
    for seq in seqs:
        lines += cast(int, _one(store, f"SELECT count(*) FROM line WHERE root = {seq}"))
        statements += [(f"DELETE FROM {table} WHERE root = ?", (seq,)) for table in ("fact", "line", "settled")]
        statements.append(("DELETE FROM root WHERE seq = ?", (seq,)))
    return Again(tuple(statements), lines=lines) + Again((TAKEN_BACK, ANSWERS_TAKEN_BACK) if lines else ())


def _open(store: Store, roots: str, reason: Reason, *, lines: str | None = None) -> Again:
    """Open roots that have ended, and take back their lines, or those that `lines` says, whosever they are."""
    taken = lines or f"root IN ({roots})"
    count = cast(int, _one(store, f"SELECT count(*) FROM ({roots})"))
    number = cast(int, _one(store, f"SELECT count(*) FROM line WHERE {taken}"))
    take: Statement = (f"DELETE FROM line WHERE {taken}", ())
    close: Statement = (f"DELETE FROM settled WHERE root IN ({roots})", ())
    statements: list[Statement] = [
        (f"UPDATE root SET crashes = 0 WHERE seq IN ({roots})", ()),
        (f"{_note(reason)} WHERE root IN ({roots})", ()),
        *((take, close) if lines is None else (close, take)),  # each may be found by the other
    ]
    back = (TAKEN_BACK,) if reason == "failed" else (TAKEN_BACK, ANSWERS_TAKEN_BACK)
    return Again(tuple(statements), count, number) + Again(back if number else ())


def _note(reason: Reason) -> str:
    """Says of roots why they were opened again."""
    said = {"path": "'[]'", "kind": f"'{REOPENED}'", "ordinal": "0", "value": f"CAST('\"{reason}\"' AS BLOB)"}
    return f"INSERT OR REPLACE INTO fact SELECT root, {', '.join(said.values())}, {crc('fact', **said)} FROM settled"


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
    return Again(tuple((_DELETE, row) for row in facts), facts=len(facts))


def _path(text: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", decode(text.encode())))


def _one(store: Store, query: str) -> Value:
    return next(store.read(query))[0]
