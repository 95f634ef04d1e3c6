"""Runs of the past, as they are told of: what they were given, how far they came, and in which state they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pipeline.cli.kept import BEGUN, ENDED, GIVEN, INPUT, NAME
from pipeline.cli.store import Runs
from pipeline.core.codec import BadJson, decode
from pipeline.core.errors import JournalError, JournalLocked
from pipeline.durability.disk.lock import is_locked
from pipeline.durability.inspection.overview import Overview, overview
from pipeline.durability.journal import FILE, LOCK

#: stopped: by a rule, a signal or an error; unfinished: it was killed. Both can be gone on with.
State = Literal["running", "finished", "stopped", "unfinished", "damaged"]


@dataclass(frozen=True, slots=True)
class Past:
    """One run."""

    run: str  #: its id, or its quoted directory
    directory: Path
    state: State
    seen: Overview | None  #: None if it is damaged
    damage: str = ""

    @property
    def begun(self) -> str:
        return "" if self.seen is None else self.seen.about.get(BEGUN, "")

    @property
    def given(self) -> dict[str, object]:
        """What it was given, as plain data; empty if another program made it."""
        return {} if self.seen is None else _object(self.seen.about.get(GIVEN, ""))

    @property
    def here(self) -> str:
        """The directory in which it was begun."""
        return str(self.given.get("directory", ""))

    @property
    def what(self) -> str:
        """Its name, or else its pipeline, and where its records go."""
        given = self.given
        named = self.seen.about.get(NAME) if self.seen else None
        name = named or given.get("path") or self._model or given.get("title") or "?"
        output = given.get("output", "-")
        return str(name) if output == "-" else f"{name} → {output}"

    @property
    def _model(self) -> object:
        flags = self.given.get("flags")
        return cast("dict[str, object]", flags).get("model") if isinstance(flags, dict) else None

    @property
    def waits_for_pipe(self) -> bool:
        """Whether some of its input came from a pipe and had not ended."""
        inputs = self.given.get("inputs")
        ended = self.seen is not None and self.seen.about.get(INPUT) == ENDED
        return isinstance(inputs, list) and "-" in inputs and not ended

    @property
    def code(self) -> int | None:
        """The exit code with which it ended last; None if it was killed, or runs."""
        found = {} if self.seen is None else _object(self.seen.about.get(ENDED, ""))
        code = found.get("code")
        return code if isinstance(code, int) else None


def free(directory: Path, runs: Runs) -> Path:
    """The directory, if nobody runs with what is in there; a look into it would already leave traces."""
    if is_locked(directory / LOCK):
        raise JournalLocked(f"run {runs.name_of(directory)}: another process runs with this journal; wait for it")
    return directory


def past(directory: Path, runs: Runs) -> Past:
    """Look into a run. Raises nothing: a damaged one is told of as that."""
    run = runs.name_of(directory)
    try:
        seen = overview(directory)
    except JournalError as error:
        return Past(run, directory, "damaged", None, str(error))
    return Past(run, directory, _state(seen), seen)


def newest_first(runs: Runs) -> Iterator[Past]:
    """All runs of the store, looked into one by one, the one that was written to last comes first."""
    found: list[tuple[float, Path]] = []
    for id in runs.ids():
        directory = runs.place / id
        try:
            found.append((written(directory), directory))
        except OSError:  # just removed, or not begun
            continue
    for _, directory in sorted(found, key=lambda each: (-each[0], each[1])):
        yield past(directory, runs)


def written(directory: Path) -> float:
    """When the journal was written to last, in seconds since 1970. Raises `OSError`."""
    files = (directory / FILE, directory / f"{FILE}-wal")
    return max(file.stat().st_mtime for file in files if file == files[0] or file.exists())


def _state(seen: Overview) -> State:
    if seen.running:
        return "running"
    if seen.about.get(INPUT) == ENDED and seen.is_whole:
        return "finished"
    return "stopped" if seen.about.get(ENDED) else "unfinished"


def _object(text: str) -> dict[str, object]:
    try:
        found = decode(text.encode())
    except (BadJson, ValueError):
        return {}
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
