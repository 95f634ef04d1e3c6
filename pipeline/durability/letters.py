"""The line of a record that failed, with its dead letter, which is made of the attempts that the journal has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from pipeline.core.codec import decode
from pipeline.core.dead_letter import dead_letter
from pipeline.core.record import Record
from pipeline.durability import schema
from pipeline.durability.schema import Row, Value
from pipeline.durability.store import Store

_ATTEMPTS = "SELECT path, ordinal, number, model, state, usage, usd, epoch FROM attempt WHERE root = ? ORDER BY id"


class Place(NamedTuple):
    """Where a record comes from."""

    seq: int  #: of its root
    part: str  #: the name of the part of it that left the record; empty for the root itself
    slots: tuple[str, ...]  #: those of the part, as far as calls can be told by them


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A `Later` row. `values` are those of the line but the last one, its dead letter."""

    record: Record
    place: Place
    target: str
    values: tuple[Value, ...]

    def __call__(self, store: Store) -> Row:
        seq, _, slots = self.place
        letter = dead_letter(self.record, seq=seq, attempts=list(attempts(store, seq, slots)))
        return Row(schema.LINE, (*self.values, letter))


def attempts(store: Store, root: int, part: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """What was tried for one part of a root, and for what it came of."""
    for path, ordinal, number, model, state, usage, usd, epoch in list(store.read(_ATTEMPTS, (root,))):
        steps = cast("list[str]", decode(cast(str, path).encode()))
        if _is_of(steps, part):
            counts = None if usage is None else decode(cast(str, usage).encode())
            yield {
                "path": steps,
                "call": ordinal,
                "number": number,
                "model": model,
                "state": state,
                "usage": counts,
                "usd": usd,
                "run": epoch,
            }


def _is_of(path: Sequence[str], part: Sequence[str]) -> bool:
    """Whether a call at `path` (composite, slot, …, stage) was made for the part of a root at these slots, or before
    there were parts."""
    return all(slot == own for slot, own in zip(path[1::2], part, strict=False))
