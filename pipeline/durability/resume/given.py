"""What a run was given, as its journal has it: the pipeline and the settings beside it, and what has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from pipeline.core.codec import decode, encode
from pipeline.core.errors import JournalError
from pipeline.core.pipeline import Pipeline
from pipeline.durability.disk import schema
from pipeline.durability.disk.schema import Row
from pipeline.durability.disk.store import Store
from pipeline.durability.fingerprint import Fingerprint, fingerprint
from pipeline.durability.fingerprint.changes import Change, sentences
from pipeline.durability.fingerprint.values import JSON

REMEDY = (
    "--accept-changes (accept_changes=True) goes on with what is still valid and makes the rest anew; "
    "or begin a new run in another directory"
)


def given(pipeline: Pipeline, settings: Mapping[str, JSON]) -> Fingerprint:
    """The fingerprint of a pipeline, with the settings beside it that decide the results."""
    found = fingerprint(pipeline)
    return replace(found, result={**found.result, **settings})


def given_before(store: Store) -> Fingerprint | None:
    """What the last run with this journal was given; None if there was none. Raises `JournalError`."""
    rows = list(store.read("SELECT result, operational FROM config ORDER BY epoch DESC LIMIT 1"))
    if not rows:
        return None
    result, operational = (cast("dict[str, JSON]", decode(cast(str, part).encode())) for part in rows[0])
    try:
        return Fingerprint.of_json({**result, "operational": operational})
    except ValueError as error:
        raise JournalError(f"{store.path}: {error}") from None


def row_of(epoch: int, at: str, now: Fingerprint) -> Row:
    """What the journal keeps of it."""
    written = now.as_json()
    operational = written.pop("operational")
    return Row(schema.CONFIG, (epoch, at, encode(written).decode(), encode(operational).decode()))


def refuse(store: Store, found: Sequence[Change]) -> None:
    """Raise `JournalError` if anything has changed that decides the results."""
    deciding = [change for change in found if change.effect == "result"]
    if deciding:
        said = "\n".join(f"  {each}" for each in sentences(deciding))
        raise JournalError(f"{store.path.parent}: this run was begun with other definitions:\n{said}\n{REMEDY}")
