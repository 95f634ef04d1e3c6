"""The line of a record that failed, with its dead letter, which is made of the attempts that the journal has."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from pipeline.core.codec import decode
from pipeline.core.dead_letter import dead_letter
from pipeline.core.record import Record
from pipeline.durability.disk import schema
from pipeline.durability.disk.schema import LineValues, Row, Value
from pipeline.durability.disk.store import Store

_ATTEMPTS: Final = "SELECT path, ordinal, number, model, state, usage, usd, epoch FROM attempt WHERE root = ?"
_BEGUN: Final = "SELECT id, path FROM attempt WHERE root = ? AND id > ? ORDER BY id"
_ROOTS: Final = 256  #: roots of which it is remembered at once which attempts were for which part


class Place(NamedTuple):
    """Where a record comes from."""

    seq: int  #: of its root
    part: str  #: the name of the part of it that left the record; empty for the root itself
    slots: tuple[str, ...]  #: those of the part, as far as calls can be told by them


class _Begun:
    """The attempts of one root, by the slots that they were made at. What can change: those that have come."""

    def __init__(self) -> None:
        self._last = 0
        self._at: dict[tuple[str, ...], list[int]] = {}
        self._below: dict[tuple[str, ...], list[int]] = {}

    def catch_up(self, store: Store, root: int) -> None:
        """Take note of what was begun since: numbers only grow, and where an attempt was made never changes."""
        for id, path in store.read(_BEGUN, (root, self._last)):
            self._last = cast(int, id)
            slots = tuple(cast("list[str]", decode(cast(str, path).encode()))[1::2])
            self._at.setdefault(slots, []).append(self._last)
            for count in range(len(slots)):
                self._below.setdefault(slots[:count], []).append(self._last)

    def of_part(self, slots: tuple[str, ...]) -> list[int]:
        """Those that were made for the part at these slots, or before there were parts."""
        found = list(self._below.get(slots, ()))
        for count in range(len(slots) + 1):
            found += self._at.get(slots[:count], ())
        return sorted(found)


class Tried:
    """What was tried for the parts of roots, so that each failing part need not read all that was tried for the others.
    Used by the writer's thread only. What can change: the roots that are remembered."""

    def __init__(self) -> None:
        self._roots: OrderedDict[int, _Begun] = OrderedDict()

    def of_part(self, store: Store, root: int, slots: tuple[str, ...]) -> list[int]:
        """The numbers of attempts."""
        begun = self._roots.setdefault(root, _Begun())
        self._roots.move_to_end(root)
        if len(self._roots) > _ROOTS:
            self._roots.popitem(last=False)
        begun.catch_up(store, root)
        return begun.of_part(slots)


@dataclass(frozen=True, slots=True)
class FailedLine:
    """A `Later` row. `values` are those of the line, which lacks its dead letter."""

    record: Record
    place: Place
    values: LineValues
    tried: Tried

    def __call__(self, store: Store) -> Row:
        seq = self.place.seq
        letter = dead_letter(self.record, seq=seq, attempts=list(attempts(store, self.place, self.tried)))
        return Row(schema.LINE, self.values._replace(dead=letter))


def attempts(store: Store, place: Place, tried: Tried) -> Iterator[Mapping[str, object]]:
    """What was tried for one part of a root, and for what it came of."""
    root, slots = place.seq, place.slots
    if not slots:
        yield from (_told(row) for row in store.read(f"{_ATTEMPTS} ORDER BY id", (root,)))
        return
    for id in tried.of_part(store, root, slots):
        yield from (_told(row) for row in store.read(f"{_ATTEMPTS} AND id = ?", (root, id)))


def _told(row: tuple[Value, ...]) -> Mapping[str, object]:
    path, ordinal, number, model, state, usage, usd, epoch = row
    return {
        "path": decode(cast(str, path).encode()),
        "call": ordinal,
        "number": number,
        "model": model,
        "state": state,
        "usage": None if usage is None else decode(cast(str, usage).encode()),
        "usd": usd,
        "run": epoch,
    }
