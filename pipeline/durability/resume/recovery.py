"""What is checked, counted and taken back when a journal is opened again, before the run goes on.

Whatever can refuse looks first and changes nothing. All changes are one transaction, so a crash meanwhile leaves either
the journal as it was or one that is recovered, and recovering again finds the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, cast

from anyio import to_thread

from pipeline.core.codec import encode
from pipeline.core.pipeline import Pipeline
from pipeline.core.purse import PICOS
from pipeline.core.recovered import Recovered
from pipeline.durability.disk import schema
from pipeline.durability.disk.departures import departed
from pipeline.durability.disk.marks import left
from pipeline.durability.disk.store import Store
from pipeline.durability.fingerprint import Fingerprint
from pipeline.durability.fingerprint.changes import Change, differences
from pipeline.durability.fingerprint.values import JSON
from pipeline.durability.resume.given import given, given_before, refuse, row_of
from pipeline.durability.resume.input import InputChange, examine, only_failed
from pipeline.durability.resume.poison import blamed, poisoned
from pipeline.durability.resume.reopening import AS_IT_IS, Again, Reopen, changed, failed_again, redone_from, withdrawn
from pipeline.durability.resume.spending import InFlight, Means, in_flight, not_sent

# what events of an opening are called
OPENED: Final = "opened"
RECOVERED: Final = "recovered"
CHANGED: Final = "changed"
INPUT_CHANGED: Final = "input changed"
REOPENED: Final = "reopened"


@dataclass(frozen=True, slots=True)
class Opening:
    """What a journal is opened for."""

    pipeline: Pipeline
    source: object = None
    settings: Mapping[str, JSON] = field(default_factory=dict[str, JSON])  #: beside the pipeline, deciding too
    accept_changes: bool = False
    reopen: Reopen = AS_IT_IS


@dataclass(frozen=True, slots=True)
class Found:
    """What a run is given, and how that differs from what earlier ones were."""

    given: Fingerprint
    before: Fingerprint | None
    changes: tuple[Change, ...]
    input: InputChange

    @property
    def again(self) -> bool:
        """Whether what is done may not be what would be done now."""
        return any(change.effect == "result" for change in self.changes)


class Recovery(NamedTuple):
    """What came of it."""

    epoch: int  #: the number of this run
    recovered: Recovered | None  #: what earlier ones have left; None if there was none
    anew: frozenset[str]  #: ids of records that were forgotten because the input says something else under them


async def recover(store: Store, opening: Opening, marks: Path, departures: Path) -> Recovery:
    """Look, refuse or change, and count. Raises `JournalError`, with nothing changed."""
    now = await to_thread.run_sync(given, opening.pipeline, opening.settings)
    before = await to_thread.run_sync(given_before, store)
    changes = () if before is None else differences(before, now)
    if not opening.accept_changes:
        refuse(store, changes)
    input = await examine(store, opening.source, accept=opening.accept_changes)
    if opening.reopen.only_failed:
        input = await to_thread.run_sync(only_failed, store, input)
    return await to_thread.run_sync(_change, store, opening, Found(now, before, changes, input), marks, departures)


def _change(store: Store, opening: Opening, found: Found, marks: Path, departures: Path) -> Recovery:
    """Write all that follows, in one transaction."""
    (before,) = cast("tuple[int]", next(store.read(f"SELECT count(*) FROM event WHERE what = '{OPENED}'")))
    epoch, at = before + 1, datetime.now(UTC).isoformat(timespec="milliseconds")
    again = _again(store, opening, found)
    unsent = not_sent(store, departed(departures))
    crashed = in_flight(store, set(unsent))
    told = [(OPENED, {"run": epoch})]
    told += [(RECOVERED, {"calls": crashed.calls, "attempts": len(crashed.attempts)})] if crashed.attempts else []
    told += [(CHANGED, {"changes": [each.as_json() for each in found.changes]})] if found.changes else []
    told += [(INPUT_CHANGED, found.input.as_json())] if found.input != InputChange() else []
    told += [(REOPENED, {"roots": again.roots, "lines": again.lines, "facts": again.facts})] if again.statements else []
    anew = frozenset(
        cast(str, next(store.read("SELECT id FROM root WHERE seq = ?", (seq,)))[0]) for seq in found.input.edited
    )
    known = found.before is not None and found.before.as_json() == found.given.as_json()
    store.change(
        *((schema.NOT_SENT, each) for each in unsent),
        (schema.LOST, ()),
        *blamed(left(marks), epoch),
        *again.statements,
        *(() if not found.input.said else (("DELETE FROM source", ()),)),
        *(() if known else (row_of(epoch, at, found.given),)),
        *((schema.EVENT, (at, what, encode(value).decode())) for what, value in told),
    )
    recovered = None if epoch == 1 else _recovered(store, before, again, crashed)
    if recovered is not None:
        recovered = replace(recovered, left=found.input.left)
    return Recovery(epoch, recovered, anew)


def _again(store: Store, opening: Opening, found: Found) -> Again:
    """What is taken back."""
    again = withdrawn(store, (*found.input.edited, *found.input.gone))  # before what is found by how it ended
    everything = found.again or opening.reopen.from_stage is not None
    if opening.reopen.failed or opening.reopen.only_failed:
        failed = failed_again(store, opening.pipeline)
        again += failed._replace(roots=0, lines=0) if everything else failed  # they are counted once
    if found.again:
        again += changed(store, opening.pipeline, found.changes)
    if opening.reopen.from_stage is not None:
        again += redone_from(store, opening.pipeline, opening.reopen.from_stage)
    return again


def _recovered(store: Store, epochs: int, again: Again, crashed: InFlight) -> Recovered:
    def one(query: str) -> int:
        return cast(int, next(store.read(query))[0])

    finished = "FROM fact WHERE kind = 'call'"
    begun = f"{finished} AND root IN (SELECT seq FROM root WHERE seq NOT IN (SELECT root FROM settled))"
    means = Means(store)
    prices = [means.price(attempt) for attempt in crashed.attempts]
    done = one("SELECT count(*) FROM settled")
    return Recovered(
        epochs=epochs,
        done=done,
        open=one("SELECT count(*) FROM root") - done,
        partly=one(f"SELECT count(DISTINCT root) {begun}"),
        reused=one(f"SELECT count(*) {begun}"),
        calls=one(f"SELECT count(*) {finished}"),
        calls_in_flight=crashed.calls,
        attempts_in_flight=len(crashed.attempts),
        usd=sum(price or 0 for price in prices) / PICOS,
        unpriced=prices.count(None),
        reopened=again.roots,
        poisoned=poisoned(store),
    )
