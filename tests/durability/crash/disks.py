"""The states in which a loss of power can leave the files of a run.

What was synced is there. Of what was written after that each unit (a page, a frame of the log, a part of the output)
may be there, or not, or in part, in any order; and what is not there is nothing, or zeros where the file grew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from tests.durability.crash.recording import DB, LOG, Files, Moment

PAGE: Final = 4096
HEADER: Final = 32  #: of the log
FRAME: Final = 24 + PAGE
UNIT: Final = 64  #: bytes of an output that reach the disk together, here

Way = str
WAYS: Final = ("first", "torn", "zeros", "without", "some")


@dataclass(frozen=True)
class State:
    """Files after a loss of power between `before` and the next moment."""

    moment: int
    before: Moment
    name: str  #: how it came about, for people
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class _Step:
    """Files on the way from what is synced to what is written."""

    moment: int
    before: Moment
    base: Files
    target: Files

    @property
    def changed(self) -> list[str]:
        names = dict.fromkeys((*self.base, *self.target))
        return [name for name in names if self.base.get(name) != self.target.get(name)]


def states(moments: Sequence[Moment], count: int, chance: Random) -> Iterator[State]:
    """About `count` states, spread evenly over the steps in which something changed; no two are alike."""
    found = (step for at, (here, there) in enumerate(pairwise(moments)) for step in _steps(at, here, there))
    steps = [step for step in found if step.changed]
    chance.shuffle(steps)
    seen: set[int] = set()
    made = turn = 0
    while made < count and turn < 20 * count:
        step = steps[turn % len(steps)]
        turn += 1
        state = _state(step, chance)
        key = hash((step.before.requests, tuple(sorted(state.files.items()))))
        if key not in seen:
            seen.add(key)
            made += 1
            yield state


def _steps(at: int, here: Moment, there: Moment) -> Iterator[_Step]:
    """Where the log was cut, the database was synced first, so that is two steps."""
    before, after = here.files.get(LOG, b""), there.files.get(LOG, b"")
    if len(after) < len(before):
        full = {**there.files, LOG: before}
        yield _Step(at, here, here.synced, full)
        yield _Step(at, here, {**here.synced, DB: there.files[DB]}, there.files)
    else:
        yield _Step(at, here, here.synced, there.files)


def _state(step: _Step, chance: Random) -> State:
    """One file in an odd state, each of the others as it was written, as it was synced, or odd as well."""
    files = dict(step.base)
    odd = chance.choice(step.changed)
    told: list[str] = []
    for name in step.changed:
        way = chance.choice(WAYS) if name == odd else chance.choice(("all", "none", *WAYS))
        data, how = _half(name, step.base.get(name), step.target.get(name), way, chance)
        files.pop(name, None)
        if data is not None:
            files[name] = data
        told.append(f"{name} {how}")
    return State(step.moment, step.before, f"after {step.before.point!r}: {', '.join(told)}", files)


def _half(name: str, old: bytes | None, new: bytes | None, way: Way, chance: Random) -> tuple[bytes | None, str]:
    """Somewhere between `old` and `new`; and in words."""
    if name == DB and old is None:  # it was synced under another name before it had this one
        way = chance.choice(("all", "none"))
    if way == "all" or (new is None and chance.random() < 0.5):
        return new, "written"
    if way == "none" or new is None:
        return old, "not written"
    if len(new) < len(old or b""):  # it was cut
        return (old, "not cut") if chance.random() < 0.5 else (new, "cut")
    units = [unit for unit in _units(name, len(new)) if new[slice(*unit)] != (old or b"")[slice(*unit)]]
    if not units:  # an empty file, which is there or not
        return new, "written"
    chosen = chance.randrange(len(units))
    start, end = units[chosen]
    match way:
        case "first":
            return _applied(old, new, units[:chosen], end=start), f"{chosen} of {len(units)} units"
        case "torn":
            part = chance.choice((1, (end - start) // 2, end - start - 1))
            return _applied(
                old, new, [*units[:chosen], (start, start + part)], end=start + part
            ), f"torn at {start + part}"
        case "zeros":
            return _applied(old, new, units[:chosen], end=len(new)), f"zeros from {start}"
        case "without":
            rest = [unit for unit in units if unit != (start, end)]
            return _applied(old, new, rest, end=len(new)), f"without {start}-{end}"
        case _:
            some = [unit for unit in units if chance.random() < 0.5]
            end = max((end for _, end in some), default=0) if chance.random() < 0.5 else len(new)
            return _applied(old, new, some, end=end), f"{len(some)} of {len(units)} units"


def _applied(old: bytes | None, new: bytes, units: Sequence[tuple[int, int]], *, end: int) -> bytes:
    """`old` with some of what makes it `new`; it has grown to `end`, and what was not written there is zeros."""
    data = bytearray(old or b"")
    data.extend(bytes(max(0, end - len(data))))
    for start, stop in units:
        data.extend(bytes(max(0, stop - len(data))))
        data[start:stop] = new[start:stop]
    return bytes(data)


def _units(name: str, size: int) -> Iterator[tuple[int, int]]:
    start, step = 0, UNIT
    if name == LOG:
        yield 0, min(HEADER, size)
        start, step = HEADER, FRAME
    elif name == DB:
        step = PAGE
    for at in range(start, size, step):
        yield at, min(at + step, size)
