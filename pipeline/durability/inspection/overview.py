"""What a journal says of its run: how far it came, what it cost, what failed. Read, never written."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from pipeline.core.codec import BadJson, decode
from pipeline.core.errors import JournalError
from pipeline.core.progress import Progress
from pipeline.durability.disk.lock import is_locked
from pipeline.durability.disk.schema import Value
from pipeline.durability.disk.store import Store
from pipeline.durability.journal import FILE, LOCK
from pipeline.durability.outputs.output import OUTPUT
from pipeline.durability.outputs.projection import TAKEN
from pipeline.durability.resume.input import progress

_MOST_REASONS: Final = 20

#: lines that the consumer has not taken, of a run without an output file, which is made of the journal by every resume
_UNTAKEN: Final = (
    f"SELECT count(*) FROM line WHERE number > coalesce((SELECT number FROM projection WHERE name = '{TAKEN}'), 0)"
    f" AND NOT EXISTS (SELECT 1 FROM meta WHERE key = '{OUTPUT}')"
)


@dataclass(frozen=True, slots=True)
class Overview:
    """A run as its journal has it."""

    directory: Path
    running: bool  #: a process runs with it
    about: Mapping[str, str]  #: what was kept when it was made, and how it ended
    admitted: int
    settled: Mapping[str, int]  #: roots by status
    begun: int  #: roots that are open, with answers in the journal
    answers: int  #: those answers
    attempts: Mapping[str, int]  #: by how they ended; `started` are in flight, or were when the process died
    usd: float  #: what is known to be paid
    unpriced: int  #: attempts that were answered and have no known price
    untaken: int = 0  #: records that have ended and that no output has

    @property
    def is_whole(self) -> bool:
        """Whether every root that was admitted has ended, and every record is where it should be."""
        return not self.open and not self.untaken

    @property
    def done(self) -> int:
        """Roots that have ended."""
        return sum(self.settled.values())

    @property
    def open(self) -> int:
        """Roots that are to be finished."""
        return self.admitted - self.done

    @property
    def failed(self) -> int:
        return self.settled.get("failed", 0)


@dataclass(frozen=True, slots=True)
class Spending:
    """What the attempts of one model came to."""

    model: str
    attempts: int
    input_tokens: int
    output_tokens: int
    usd: float
    unpriced: int


@dataclass(frozen=True, slots=True)
class Details:
    """What only a closer look shows."""

    spending: tuple[Spending, ...]
    reasons: Mapping[str, int]  #: records that failed, by what and where
    epochs: int  #: how often it was begun or gone on with
    changes: tuple[tuple[str, str, str], ...]  #: what happened to it: when, what, how


def overview(directory: Path) -> Overview:
    """Look into the journal in `directory`. Raises `JournalError`."""
    running = is_locked(directory / LOCK)
    with _looking(directory) as store:
        (admitted,) = _one(store, "SELECT count(*) FROM root")
        begun, answers = _one(
            store,
            "SELECT count(DISTINCT root), count(*) FROM fact"
            " WHERE kind = 'call' AND root NOT IN (SELECT root FROM settled)",
        )
        usd, unpriced = _one(
            store,
            "SELECT coalesce(sum(usd), 0.0), count(*) FILTER (WHERE usd IS NULL AND state IN ('ok', 'failed'))"
            " FROM attempt",
        )
        return Overview(
            directory,
            running,
            _texts(store, "SELECT key, value FROM meta"),
            cast(int, admitted),
            _counts(store, "SELECT status, count(*) FROM settled GROUP BY status"),
            cast(int, begun),
            cast(int, answers),
            _counts(store, "SELECT state, count(*) FROM attempt GROUP BY state"),
            cast(float, usd),
            cast(int, unpriced),
            cast(int, _one(store, _UNTAKEN)[0]),
        )


def details(directory: Path) -> Details:
    """Look closer. Raises `JournalError`."""
    with _looking(directory) as store:
        spending = store.read(
            "SELECT model, count(*), coalesce(sum(json_extract(usage, '$.input_tokens')), 0),"
            " coalesce(sum(json_extract(usage, '$.output_tokens')), 0), coalesce(sum(usd), 0.0),"
            " count(*) FILTER (WHERE usd IS NULL AND state IN ('ok', 'failed')) FROM attempt GROUP BY model ORDER BY 1"
        )
        return Details(
            tuple(Spending(*cast("tuple[str, int, int, int, float, int]", row)) for row in spending),
            _reasons(store),
            cast(int, _one(store, "SELECT count(*) FROM event WHERE what = 'opened'")[0]),
            tuple(
                cast("tuple[str, str, str]", row) for row in store.read("SELECT at, what, value FROM event ORDER BY id")
            ),
        )


def inputs(directory: Path) -> list[Progress]:
    """How far the inputs were read. Raises `JournalError`."""
    with _looking(directory) as store:
        return progress(store)


def _reasons(store: Store) -> Mapping[str, int]:
    """The records that failed by type and stage, the most frequent first. A line that is not JSON counts as other."""
    found: dict[str, int] = {}
    for (data,) in store.read("SELECT data FROM line WHERE status = 'failed'"):
        reason = _reason(cast(bytes, data))
        reason = reason if reason in found or len(found) < _MOST_REASONS else "other"
        found[reason] = found.get(reason, 0) + 1
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _reason(data: bytes) -> str:
    try:
        error = cast("Mapping[str, Mapping[str, str | None]]", decode(data))["error"]
        return f"{error['type']} ({error['stage']})" if error["stage"] else str(error["type"])
    except (BadJson, TypeError, KeyError):
        return "other"


@contextmanager
def _looking(directory: Path) -> Generator[Store]:
    path = directory / FILE
    if not path.exists():
        raise JournalError(f"{directory}: no run is kept here")
    with Store.looking(path) as store:
        yield store


def _one(store: Store, query: str) -> tuple[Value, ...]:
    return next(store.read(query))


def _texts(store: Store, query: str) -> Mapping[str, str]:
    return {str(key): str(value) for key, value in store.read(query)}


def _counts(store: Store, query: str) -> Mapping[str, int]:
    return {str(key): cast(int, value) for key, value in store.read(query)}
