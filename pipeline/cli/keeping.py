"""Whether a run is kept, and where: in the store of runs, in a directory of its own, or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

from pipeline.cli.ends import Renders, Silence, sink
from pipeline.cli.execution import Job
from pipeline.cli.exits import UsageError
from pipeline.cli.given import STDIN, Given
from pipeline.cli.job import Flags
from pipeline.cli.kept import BEGUN, DURABILITY, ENDED, GIVEN, INPUT, NAME, Kept, now
from pipeline.cli.store import Runs, check_place, usual
from pipeline.cli.trust import SEAL, seal
from pipeline.core.codec import decode, encode
from pipeline.core.errors import JournalError, JournalLocked
from pipeline.core.ports import Resource, Sink
from pipeline.core.record import Record
from pipeline.core.refusals import Mode
from pipeline.durability.disk.lock import is_locked
from pipeline.durability.disk.store import Durability
from pipeline.durability.fingerprint.values import JSON
from pipeline.durability.journal import FILE, LOCK, Journal
from pipeline.durability.outputs.output import Output
from pipeline.durability.outputs.rendering import standard_line
from pipeline.durability.resume.reopening import Reopen

LOST: Final = "not kept (--no-store): if it is cut short it cannot be gone on with, and its answers are paid for again"

#: flags of the input that decide which records there are and what they say; not how many
_READING: Final = ("encoding", "keep_empty", "shard", "max_record_bytes")


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


def keep(job: Job, given: Given, keeping: Keeping) -> Job:
    """The same job, kept in a new place or in the old one if that was asked for. Raises `JournalError`."""
    if keeping.no_store:
        job.voice.note(LOST)
        return job if given.flags.errors is None else replace(job, sink=_with_letters(job, given.flags))
    if keeping.run_dir is not None:
        directory = Path(keeping.run_dir).absolute()
        there, ours = _examined(directory, keeping.resume)
        run = _name(directory)
        sealed = _sealed(given)
    else:
        runs = usual()
        check_place(runs.place)
        directory, there, ours = runs.make(), False, True
        run, sealed = directory.name, ""
    about = {GIVEN: given.encode(), NAME: keeping.name or "", BEGUN: now(), DURABILITY: keeping.durability}
    about |= {SEAL: sealed} if sealed else {}
    journal = Journal(directory, keeping.durability, about=about)
    return _with(job, given, Kept(directory, run, journal, given.piped, fresh=not there, ours=ours))


def resumed(job: Job, given: Given, directory: Path, run: str, about: Mapping[str, str], again: Again) -> Job:
    """The same job, going on with a run of the past."""
    reopen = Reopen(again.failed, again.only_failed, again.from_stage)
    durability: Durability = "process" if about.get(DURABILITY) == "process" else "power"
    journal = Journal(directory, durability, accept_changes=again.accept_changes, reopen=reopen)
    kept = Kept(directory, run, journal, given.piped, fresh=False, ours=False, input_ended=about.get(INPUT) == ENDED)
    return _with(job, given, kept)


def _with(job: Job, given: Given, kept: Kept) -> Job:
    """The job with the journal, which writes the output itself if that is a file."""
    flags = given.flags
    mode = _mode(flags)
    output = None if not _is_file(flags.output) else Output(flags.output, mode, job.inputs)
    errors = None if flags.errors is None else Output(flags.errors, mode, job.inputs)
    kept.journal = replace(
        kept.journal, output=output, errors=errors, settings=_settings(flags), render=_render(flags, job.sink)
    )
    kept.errors = None if flags.errors is None else Path(flags.errors)
    kept.tell = job.voice.note
    return replace(job, kept=kept, sink=job.sink if output is None else Silence())


def _examined(directory: Path, resume: bool) -> tuple[bool, bool]:
    """Whether a run is kept there already, and whether the directory is to be made. Raises `JournalError`."""
    ours = not directory.exists()
    check_place(directory)
    if is_locked(directory / LOCK):
        raise JournalLocked(f"{directory}: another process runs with this journal; wait for it")
    there = (directory / FILE).exists()
    if there and not resume:
        run = _name(directory)
        raise JournalError(
            f"{directory}: keeps a run already; go on with it (penstock resume {run}, or add --resume), remove it "
            f"(penstock runs rm {run}), or name another directory"
        )
    return there, ours


def _sealed(given: Given) -> str:
    """What shows that a run outside the store is this user's."""
    try:
        return seal(given.encode(), usual())
    except JournalError:  # there is no store
        return ""


def _name(directory: Path) -> str:
    try:
        return usual().name_of(directory)
    except JournalError:  # there is no store, and none is needed
        return Runs(Path(os.sep)).name_of(directory)


def _is_file(path: str) -> bool:
    """Whether the output can be made of the journal: a file that is one, or is not there yet."""
    if path == STDIN:
        return False
    try:
        return not os.path.exists(path) or not _is_stream(os.stat(path).st_mode)
    except OSError:
        return True  # refused when it is opened


def _is_stream(mode: int) -> bool:
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _with_letters(job: Job, flags: Flags) -> Resource[Sink]:
    """The sink, and a file of failed records beside it."""
    return sink("dead_letters", inner=job.sink, path=flags.errors, mode=_mode(flags), inputs=job.inputs)


def _mode(flags: Flags) -> Mode:
    return "overwrite" if flags.overwrite else "append" if flags.append else "create"


def _render(flags: Flags, sink: object) -> Callable[[Record], bytes]:
    """What makes the bytes of a record's line."""
    return cast(Renders, sink).render if flags.raw or flags.raw_field is not None else standard_line


def _settings(flags: Flags) -> dict[str, JSON]:
    """What decides the results beside the pipeline."""
    settings: dict[str, object] = {
        "input.format": flags.input_format,
        "input.field": flags.field,
        "input.id_field": flags.id_field,
        "output.raw": flags.raw,
        "output.raw_field": flags.raw_field,
        **{f"input.{option}": flags.reading.get(option) for option in _READING},
    }
    given = {key: value for key, value in settings.items() if value not in (None, False, "auto")}
    return cast("dict[str, JSON]", decode(encode(given)))
