"""Whether a new run is kept, and where: in the store of runs, in a directory of its own, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.exits import UsageError
from pipeline.cli.given import Given
from pipeline.cli.kept import BEGUN, DURABILITY, ENDED, GIVEN, INPUT, NAME, Kept, now
from pipeline.cli.store import Runs, check_place, usual
from pipeline.cli.voice import Voice
from pipeline.core.errors import JournalError, JournalLocked
from pipeline.durability.journal import FILE, LOCK, Journal
from pipeline.durability.lock import is_locked
from pipeline.durability.store import Durability

LOST = "not kept (--no-store): if it is cut short it cannot be gone on with, and its answers are paid for again"


@dataclass(frozen=True, slots=True)
class Again:
    """What a resume does beside what is unfinished."""

    failed: bool = False
    only_failed: bool = False
    from_stage: str | None = None
    accept_changes: bool = False

    def __post_init__(self) -> None:
        if self.only_failed and self.from_stage is not None:
            raise UsageError("--only failed and --from exclude each other: --from is about all records")

    @property
    def anything(self) -> bool:
        """Whether there is something to do in a run that is finished."""
        return self.failed or self.only_failed or self.from_stage is not None or self.accept_changes


@dataclass(frozen=True, slots=True)
class Keeping:
    """What flags say of it."""

    run_dir: str | None = None
    resume: bool = False
    no_store: bool = False
    name: str | None = None
    durability: Durability = "power"

    def __post_init__(self) -> None:
        if self.resume and self.run_dir is None:
            raise UsageError("--resume goes on with the run in --run-dir; those in the store: penstock resume [RUN]")
        if self.no_store and (self.run_dir or self.name):
            raise UsageError("--no-store keeps nothing, so it excludes --run-dir and --name")


def keep(given: Given, keeping: Keeping, voice: Voice) -> Kept | None:
    """Make a place for a new run, or open the old one if that was asked for. Raises `JournalError`."""
    if keeping.no_store:
        voice.note(LOST)
        return None
    if keeping.run_dir is not None:
        return _in_directory(given, keeping, Path(keeping.run_dir))
    runs = usual()
    check_place(runs.place)
    directory = runs.make()
    return Kept(directory, directory.name, _journal(directory, given, keeping), given.piped)


def _in_directory(given: Given, keeping: Keeping, directory: Path) -> Kept:
    directory = directory.absolute()
    if is_locked(directory / LOCK):
        raise JournalLocked(f"{directory}: another process runs with this journal; wait for it")
    run = _name(directory)
    there = (directory / FILE).exists()
    if there and not keeping.resume:
        raise JournalError(
            f"{directory}: keeps a run already; go on with it (penstock resume {run}, or add --resume), remove it "
            f"(penstock runs rm {run}), or name another directory"
        )
    ours = not directory.exists()
    check_place(directory)
    return Kept(directory, run, _journal(directory, given, keeping), given.piped, fresh=not there, ours=ours)


def resumed(directory: Path, run: str, given: Given, about: Mapping[str, str], again: Again) -> Kept:
    """A run of the past, to go on with."""
    keeping = Keeping(durability="process" if about.get(DURABILITY) == "process" else "power")
    journal = _journal(directory, given, keeping)
    return Kept(directory, run, journal, given.piped, fresh=False, ours=False, input_ended=about.get(INPUT) == ENDED)


def _name(directory: Path) -> str:
    try:
        return usual().name_of(directory)
    except JournalError:  # there is no store, and none is needed
        return Runs(Path("/")).name_of(directory)


def _journal(directory: Path, given: Given, keeping: Keeping) -> Journal:
    return Journal(directory, keeping.durability, about=_about(given, keeping))


def _about(given: Given, keeping: Keeping) -> dict[str, str]:
    """What is kept when a journal is made."""
    return {GIVEN: given.encode(), NAME: keeping.name or "", BEGUN: now(), DURABILITY: keeping.durability}
