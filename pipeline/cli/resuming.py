"""From a run of the past to what is to be run now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.cli.closing import settled_code
from pipeline.cli.ends import Nothing
from pipeline.cli.execution import execute
from pipeline.cli.exits import OK, UsageError
from pipeline.cli.following import next_command
from pipeline.cli.given import STDIN, Given
from pipeline.cli.job import Document, job_of, source_of
from pipeline.cli.keeping import Again, resumed
from pipeline.cli.kept import GIVEN
from pipeline.cli.past import Past, free, newest_first, past
from pipeline.cli.store import Runs, usual
from pipeline.cli.trust import is_own, permitted, refuse_foreign, would_do
from pipeline.cli.voice import Voice
from pipeline.core.errors import JournalError
from pipeline.core.progress import Rereadable
from pipeline.durability.inspection.overview import Overview, inputs
from pipeline.durability.inspection.verify import refuse_changed_files
from pipeline.durability.journal import DEAD, FILE


def go_on(
    word: str | None,
    again: Again,
    operational: Mapping[str, object],
    voice: Voice,
    *,
    stdin: bool,
    json_status: bool,
    allow_import: Sequence[str] = (),
    trust: bool = False,
) -> int:
    """Go on with the run that `word` names, or with the last unfinished one of this directory; return the exit code.
    Raises `UsageError` and `JournalError`, for a run that may be somebody else's too, unless `trust`."""
    runs = usual() if word is None or os.sep not in word else _any()
    found = _last_unfinished(runs, again) if word is None else past(free(runs.find(word), runs), runs)
    if found is None:
        voice.note("nothing to do: all runs of this directory are finished (penstock runs list)")
        return OK
    refuse_foreign(found.directory)
    seen = _seen(found)
    own = is_own(found.directory, seen.about, runs)
    if not own and GIVEN in seen.about:
        _trusted(found, Given.decode(seen.about[GIVEN]), voice, trust=trust)
    if found.state == "finished" and not (again.anything or stdin or _input_changed(found, seen, voice)):
        refuse_changed_files(found.directory / FILE, found.directory / DEAD)
        failed = f"; {seen.failed:,} failed earlier: {next_command(found.run, only_failed=True)}" if seen.failed else ""
        voice.note(f"nothing to do: run {found.run} is finished, {seen.done:,} records{failed}")
        return settled_code(seen.settled)
    given = permitted(Given.decode(seen.about.get(GIVEN)).changed(operational), allow_import, own=own)
    _enter(given)
    stdin = stdin and not again.only_failed
    if stdin and not given.piped:
        raise UsageError(f"the input of run {found.run} was not piped: {', '.join(given.inputs)}; leave the - out")
    job = job_of(given.flags, _document(given, found.run, voice), _inputs(given), voice)
    job = resumed(job, given, found.directory, found.run, seen.about, again)
    if (again.only_failed and not again.accept_changes) or (given.piped and not stdin):
        job = replace(job, source=Nothing())
    return execute(replace(job, json_status=json_status), limit=0)


def _input_changed(found: Past, seen: Overview, voice: Voice) -> bool:
    """Whether there is more in the files that a finished run has read to their end, or something else. Files that are
    gone are not missed."""
    try:
        given = Given.decode(seen.about.get(GIVEN))
        _enter(given)
    except JournalError:
        return False
    read = [each for each in inputs(found.directory) if each.ended and os.path.isfile(each.name)]
    if any(os.path.getsize(each.name) > each.read for each in read):
        return True
    source = source_of(given.flags, _inputs(given), voice)
    return isinstance(source, Rereadable) and bool(source.differences(read))


def _inputs(given: Given) -> tuple[str, ...]:
    words = given.flags.words if given.flags.ad_hoc else given.flags.words[1:]
    return words or (STDIN,)


def _trusted(found: Past, given: Given, voice: Voice, *, trust: bool) -> None:
    """Say what a run that may be somebody else's would do. Raises `JournalError` unless that was agreed to."""
    lines = would_do(given)
    if trust:
        voice.note("\n".join((f"run {found.run} is trusted (--trust):", *lines)))
        return
    said = f"{found.directory}: was not begun by you here, so it may be somebody else's; to go on with it"
    right = "if that is right, add --trust, and --allow-import for what it may import"
    raise JournalError("\n".join((said, *lines, right)))


def _any() -> Runs:
    try:
        return usual()
    except JournalError:  # a directory is named, so no store is needed
        return Runs(Path(os.sep))


def _seen(found: Past) -> Overview:
    if found.seen is None:
        raise JournalError(found.damage)
    return found.seen


def _last_unfinished(runs: Runs, again: Again) -> Past | None:
    """The run of this directory that was written to last and can be gone on with; with `again` also a finished one;
    None if all are finished. Raises `UsageError` if there is none at all."""
    here, any_here = os.getcwd(), False
    for found in newest_first(runs):
        if found.here != here or found.state == "running":
            continue
        any_here = True
        if again.anything or found.state in ("stopped", "unfinished"):
            return found
    if not any_here:
        raise UsageError("no run of this directory is kept; name one: penstock runs list --all")
    return None


def _enter(given: Given) -> None:
    """Go to the directory where the run was begun, because paths in its flags are meant from there."""
    try:
        os.chdir(given.directory)
    except OSError as error:
        paths = (*given.flags.words, given.flags.output, *given.flags.allow_import)
        if all(path == STDIN or os.path.isabs(path) for path in paths):
            return
        why = (error.strerror or str(error)).lower()
        raise JournalError(f"the run was begun in {given.directory}, which cannot be entered: {why}") from None


def _document(given: Given, run: str, voice: Voice) -> Document:
    """The pipeline as its file has it now, or as it was if there is no file any more."""
    if given.path is None:
        return Document(given.text, given.title, None)
    try:
        with open(given.path, "rb") as file:
            return Document(file.read(), given.title, given.path)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        voice.note(f"{given.path}: {why}; the pipeline is taken from the journal of run {run}")
        return Document(given.text, given.title, None)
