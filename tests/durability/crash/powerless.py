"""Loses power at a moment of a run, starts the next life from what the disk may then hold, and compares."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.durability.crash.cases import Case
from tests.durability.crash.disks import State, states
from tests.durability.crash.judging import against_moment, against_output, done_again
from tests.durability.crash.ledger import Seen, read
from tests.durability.crash.life import RUN, Probe, fork, live
from tests.durability.crash.playing import Life, Undisturbed, left, one_life
from tests.durability.crash.recording import Files, Moment, Recorder, moments
from tests.durability.crash.workloads import Workload

#: What is recorded: runs from their start, and runs that go on after a crash.
RECORDED: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("sequence", ()),
    ("sequence", (60,)),
    ("parallel", ()),
    ("parallel", (90, 12)),
    ("dead letters", ()),
    ("duplicates", ()),
    ("duplicates", (40,)),
    ("scatter", (70,)),
    ("flat_map", ()),
    ("custom", (50,)),
)


@dataclass
class Losses:
    """What came of the states: the run went on and is right, or it was refused; anything else is a fault."""

    right: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    faults: list[str] = field(default_factory=list[str])

    @property
    def total(self) -> int:
        return self.right + self.refused.total() + len(self.faults)


def record(workload: Workload, case: Case, place: Path) -> list[Moment]:
    """The moments of the life after those that `case` kills."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for number, kill in enumerate(case.kills):
        one_life(workload, 0, place, number, case, kill, None)
    fork(_recorded, workload, place, len(case.kills), case.backend)
    return moments(place / "moments")


def _recorded(workload: Workload, place: Path, number: int, backend: str) -> None:
    kept_ones: list[Recorder] = []

    def watch(probe: Probe) -> Recorder:
        kept_ones.append(Recorder(place, probe))
        return kept_ones[0]

    live(workload, 0, place, number, backend, "inline", None, watch=watch)
    kept_ones[0].save(place / "moments")


def lose_power(
    workload: Workload,
    right: Undisturbed,
    recorded: Case,
    count: int,
    seed: int,
    place: Path,
    losses: Losses,
    only: int | None = None,
) -> None:
    """Try `count` states of the life after those that `recorded` kills; or of these `only` one."""
    found = record(workload, recorded, place)
    book = (place / "ledger").read_bytes()
    for number, state in enumerate(states(found, count, Random(f"{seed} {recorded}"))):
        if only is not None and number != only:
            continue
        again = f"--disks --case {str(recorded)!r} --each {count} --seed {seed} --state {number}"
        faults, life = _try(workload, right, recorded, state, book[: state.before.requests], place)
        if life.refused and only is not None:
            losses.faults.append("\n".join([state.name, *faults]))
        elif life.refused:
            losses.refused[str(life.failed).strip().rpartition("\n")[2].rpartition("/")[2]] += 1
        elif faults:
            losses.faults.append("\n".join([f"python -m tests.durability.crash {again}", state.name, *faults]))
        else:
            losses.right += 1


def _try(
    workload: Workload, right: Undisturbed, recorded: Case, state: State, book: bytes, place: Path
) -> tuple[list[str], Life]:
    number = len(recorded.kills) + 1
    lay(place, state.before.synced, book)
    sure = left(place, 0, 0, 0)  # what the disk surely has
    lay(place, state.files, book)
    life = one_life(workload, 0, place, number, recorded, None, None)
    if life.failed is not None:
        return [life.failed], life
    return list(_faults(workload, right, sure, life, number, tuple(read(place / "ledger")))), life


def _faults(
    workload: Workload, right: Undisturbed, sure: Life, life: Life, number: int, seen: tuple[Seen, ...]
) -> Iterator[str]:
    yield from against_output(workload, right, life)
    yield from (f"verify says: {problem}" for problem in life.problems)
    yield from against_moment(sure, number - 1, seen, written=False)
    yield from against_moment(life, number, seen)
    yield from done_again(sure.kept, number - 1, seen)


def lay(place: Path, files: Files, book: bytes) -> None:
    """Make the files of a run, and what the server knows."""
    shutil.rmtree(place, ignore_errors=True)
    (place / RUN).mkdir(parents=True)
    for name, data in files.items():
        (place / name).write_bytes(data)
    (place / "ledger").write_bytes(book)
    for number in range(9):
        (place / f"life-{number}.json").write_bytes(b"{}")
