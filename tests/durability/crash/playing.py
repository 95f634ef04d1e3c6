"""Plays a case from the first life to the last, each in a child of this process, and keeps what is left by each.

This process imports everything, never runs an event loop and has no threads, so a child is a clean copy of it.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.core.errors import JournalError
from pipeline.durability.inspection.verify import verify
from pipeline.durability.journal import DEAD, FILE
from tests.durability.crash.cases import Case, Extent
from tests.durability.crash.kept import Kept, kept
from tests.durability.crash.ledger import Seen, read
from tests.durability.crash.life import OUTPUT, RUN, fork, live
from tests.durability.crash.workloads import Workload


@dataclass(frozen=True)
class Life:
    """What one life left. `struck` is the point at which it was killed."""

    phase: int
    struck: str | None
    recovering: bool
    failed: str | None
    refused: bool  #: it failed because the journal was refused
    printed: int | None  #: calls of which its recovery said that they may be paid twice
    kept: Kept
    output: bytes | None
    problems: tuple[str, ...]  #: what the program's own proof finds wrong


@dataclass(frozen=True)
class Played:
    lives: tuple[Life, ...]
    seen: tuple[Seen, ...] = field(repr=False)

    @property
    def last(self) -> Life:
        return self.lives[-1]

    def crashes(self) -> Sequence[tuple[int, Life]]:
        """The lives that did not come to their end, with their numbers."""
        return [(number, life) for number, life in enumerate(self.lives) if life.struck is not None]


def play(workload: Workload, case: Case, place: Path, *, tell: list[Any] | None = None) -> Played:
    """Run the phases of `workload`, each again until it has not been killed. `place` is made new."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    lives: list[Life] = []
    kills, phase = list(case.kills), 0
    while phase < len(workload.phases):
        kill_at = (kills.pop(0) if kills else 0) or None
        life = one_life(workload, phase, place, len(lives), case, kill_at, tell)
        lives.append(life)
        if life.failed is not None:
            break
        if life.struck is None:
            phase += 1
    return Played(tuple(lives), tuple(read(place / "ledger")))


def one_life(
    workload: Workload, phase: int, place: Path, number: int, case: Case, kill_at: int | None, tell: list[Any] | None
) -> Life:
    ended = fork(live, workload, phase, place, number, case.backend, case.mode, kill_at, tell=tell is not None)
    return left(place, number, phase, ended, tell)


def left(place: Path, number: int, phase: int, ended: int, tell: list[Any] | None = None) -> Life:
    """What a life whose process `ended` so has left."""
    report = json.loads((place / f"life-{number}.json").read_bytes() or b"{}")
    failed = report.get("failed")
    if failed is None and (ended != 0) != ("struck" in report):
        failed = f"the process ended with {ended}; it told {report}"
    if tell is not None:
        tell.append(report)
    output = place / OUTPUT
    return Life(
        phase,
        report.get("struck"),
        report.get("recovering", False),
        failed,
        report.get("refused", False),
        report.get("printed"),
        kept(place / RUN),
        output.read_bytes() if output.exists() else None,
        _problems(place / RUN),
    )


def _problems(run: Path) -> tuple[str, ...]:
    """What `verify` says, which changes nothing. A run that was killed early has no journal yet."""
    try:
        return verify(run / FILE, run / DEAD).problems if (run / FILE).exists() else ()
    except JournalError as error:
        return (str(error),)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed, and how many points it passed."""

    played: Played
    extent: Extent

    @property
    def kept(self) -> Kept:
        return self.played.last.kept


def undisturbed(workload: Workload, backend: str, place: Path) -> Undisturbed:
    """Run it to its end, and once more, since a run that goes on passes points of its own. What the children had to
    import is imported here, so that no other child has to."""
    told: list[Any] = []
    played = play(workload, Case(workload.name, backend, "inline", ()), place, tell=told)
    if played.last.failed is not None:
        raise AssertionError(f"{workload.name} on {backend}: {played.last.failed}")
    again: list[Any] = []
    one_life(workload, len(workload.phases) - 1, place, len(told), Case("", backend, "inline", ()), None, again)
    for name in dict.fromkeys(name for report in (*told, *again) for name in report["modules"]):
        if name not in sys.modules:
            importlib.import_module(name)
    extent = Extent(tuple(tuple(report["points"]) for report in told), len(again[0]["points"]))
    return Undisturbed(played, extent)
