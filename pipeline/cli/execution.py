"""One run of the command: opens the ends, runs, listens, shows how far it is, and ends with an exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from math import inf
from typing import Literal

import anyio
from anyio import create_task_group

from pipeline.cli.aftermath import aftermath
from pipeline.cli.alarms import Alarms
from pipeline.cli.closing import UNREAD, Failures, abandoned, closing, dropped, opening, paid, remarked, verdict
from pipeline.cli.collector import seldom_collected
from pipeline.cli.descriptors import raise_limit
from pipeline.cli.ends import Begun, Heard, Watched
from pipeline.cli.exits import BROKEN, OK, OUTPUT_CLOSED, REFUSED, SOME_FAILED, STOPPED, code_of, members, told
from pipeline.cli.interrupts import GRACE, Interrupts, watch_reader
from pipeline.cli.kept import Kept, ending_of
from pipeline.cli.pieces import Pieces
from pipeline.cli.streaming import Streamed, only
from pipeline.cli.voice import Voice
from pipeline.core.events import Event
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Resource, Sink, Source
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.statistics import Statistics
from pipeline.observe.progress import Progress, live_progress, plain_progress

Backend = Literal["asyncio", "trio"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run, and how it is shown."""

    name: str
    pipeline: Pipeline
    source: Source
    sink: Resource[Sink]
    inputs: tuple[str, ...]
    output: str  #: `-` is stdout
    backend: Backend
    progress: Progress
    grace: float | None  #: None: what is usual
    voice: Voice
    stream: Streamed | None = None  #: an answer that is shown as it comes
    kept: Kept | None = None  #: the run's journal
    deadline: float | None = None  #: seconds after which no call is begun any more
    json_status: bool = False


def execute(job: Job, *, limit: int | None = None) -> int:
    """Run `job` to its end, whatever that is, and return the exit code. Raises nothing.

    A run without records is warned of, unless `limit` says that none were asked for.
    """
    execution = _Execution(job, none_wanted=limit == 0)
    fast = job.backend == "asyncio" and find_spec("uvloop") is not None
    error: BaseException | None = None
    warned = raise_limit(job.pipeline.bounds.calls)
    if warned is not None:
        job.voice.note(warned)
    try:
        with seldom_collected():
            anyio.run(execution.main, backend=job.backend, backend_options={"use_uvloop": True} if fast else {})
    except BaseException as raised:  # also what a signal raised before anybody listened
        error = raised
    return execution.finish(error)


class _Execution:
    """What changes: the run once it has begun, and whether the reader of stdout has left before its end."""

    def __init__(self, job: Job, *, none_wanted: bool) -> None:
        self.job = job
        self.none_wanted = none_wanted
        self.voice = job.voice
        self.run: Run | None = None
        self.records: Watched | None = None
        self.interrupts: Interrupts | None = None
        self.reader_left = False
        self.told_how = False  #: one goes on, if there is anything to go on with
        self.failures = Failures()
        self.alarms = Alarms(job.pipeline, job.voice)
        self.pieces: Pieces | None = None
        self.began = time.monotonic()
        self.started = anyio.Event()
        if job.kept is not None:
            job.kept.ending = self._ending

    async def main(self) -> None:
        """Run with everything around it, and cancel that when the run is over."""
        async with create_task_group() as tg:
            self.interrupts = interrupts = Interrupts(
                self.voice, self.job.grace, tg.cancel_scope, kept=self.job.kept is not None, last=self._last_words
            )
            await tg.start(interrupts.listen)
            tg.start_soon(interrupts.keep_grace)
            tg.start_soon(interrupts.keep_aborting)
            if self.job.deadline is not None:
                tg.start_soon(self._keep_deadline, self.job.deadline)
            if self.job.output == "-" and sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison]
                tg.start_soon(watch_reader, 1, self._reader_left)
            if self.job.stream is not None:
                self.pieces = Pieces(self.job.stream, self.voice)
                tg.start_soon(self.pieces.pump)
            show = self._progress()
            if show is not None:
                tg.start_soon(_shown, show)
            await self._run()
            tg.cancel_scope.cancel()

    async def _run(self) -> None:
        job = self.job
        async with AsyncExitStack() as stack:
            records, inner = await stack.enter_async_context(job.source.open()), job.sink
            if job.kept is not None and job.kept.takes_all(job.source):
                records = await job.kept.proved(records)
            if self.pieces is not None:
                records, inner = await only(records), self.pieces.before(inner)
            told = None if job.kept is None or not job.kept.takes_all(job.source) else job.kept.input_has_ended
            self.records = Watched(records, told)
            sink = Heard(inner, self._hear, self._unused)
            source = Begun(self.records, job.source, job.kept is not None and job.kept.journal.accept_changes)
            await job.pipeline.run(source, sink, watch=self._started, on_event=self._event, journal=job.kept)

    async def _keep_deadline(self, seconds: float) -> None:
        """Stop the run when its time is up, and abort it if what is in flight does not end within the grace."""
        await anyio.sleep(seconds)
        await self.started.wait()
        assert self.run is not None
        self.run.stop(f"the deadline of {seconds:g} s is over (--deadline)", cause_kind="deadline")
        grace = GRACE if self.job.grace is None else self.job.grace
        if grace != inf:
            await anyio.sleep(grace)
            self.run.abort()

    def _started(self, run: Run) -> None:
        self.run = run
        self.started.set()
        run.while_blocked(self.alarms.lasting)
        if self.interrupts is not None:
            self.interrupts.run = run
        for line in () if run.recovered is None else run.recovered.files:
            self.voice.note(line)
        self.voice.note(opening(self.job.name, self.job.pipeline, self.job.output))

    def _event(self, event: Event) -> None:
        if self.pieces is not None:
            self.pieces.hear(event)
        self.alarms.hear(event)

    def _hear(self, record: Record) -> None:
        said = self.failures.hear(record)
        if said is not None:
            self.voice.detail(said)

    def _unused(self) -> bool:
        """Whether the run was ended before its first record came."""
        now = self._look()
        return now is not None and not now.window.admitted and self.records is not None and not self.records.ended

    def _reader_left(self) -> None:
        if self._work_is_left() and self.interrupts is not None:
            self.reader_left = True
            self.interrupts.output_closed()

    def _work_is_left(self) -> bool:
        if self.run is None or self.records is None:
            return True
        return not self.records.ended or self.run.statistics().window.open > 0

    # -- showing ------------------------------------------------------------------------------------------------

    def _progress(self) -> Callable[[], Coroutine[object, object, None]] | None:
        style = chosen_progress(self.job)
        if style == "none":
            return None
        if style == "plain":
            return partial(plain_progress, self._look, self.voice.note)
        return partial(live_progress, self._look, self._take_over)

    def _look(self) -> Statistics | None:
        return None if self.run is None else self.run.statistics()

    def _take_over(self, above: Callable[[str], None] | None) -> None:
        self.voice.above = above

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self, error: BaseException | None) -> int:
        """Say how it ended and return the exit code."""
        code, error = self._code(error), self._counting(error)
        for text in told(error) if error is not None else ():
            self.voice.error(text)
        if error is not None and self.run is None:
            self._tell_whose(error)
        now = self._look()
        if now is not None:
            if not now.window.admitted and error is None and code == OK and not self.none_wanted:
                self.voice.note(f"warning: no records in {', '.join(_title(path) for path in self.job.inputs)}")
            lines = (*self._failed(), *remarked(now), *dropped(now), *abandoned(now), *paid(now))
            for line in lines if code != OUTPUT_CLOSED else ():
                self.voice.note(line)
            to_its_end = error is None and code in (OK, SOME_FAILED, REFUSED)
            verb, took = "done" if to_its_end else "stopped", time.monotonic() - self.began
            kept = self.job.kept
            line = closing(verb, now, took, kept=kept is not None, earlier=None if kept is None else kept.earlier)
            self.voice.note(f"{line} · {UNREAD}" if self._stopped_early() else line)
            self._said_of_earlier(code)
        self._leave(code, now, whole=error is None and self._came_to_its_end(now))
        return code

    def _tell_whose(self, error: BaseException) -> None:
        """Say which run has an output that is there already."""
        from pipeline.cli.whose import whose  # a run that begins has no need of it

        kept = self.job.kept
        said = whose(self.job.output, error, None if kept is None or not kept.fresh else kept.run)
        if said is not None:
            self.voice.error(said)

    def _failed(self) -> list[str]:
        """What failed, where that is in full, and how it is tried once more."""
        first, *rest = self.failures.lines() or [""]
        kept = self.job.kept
        if first.startswith("failed: ") and kept is not None and kept.dead.exists():
            first = f"{first} → {kept.dead}; once more: {kept.command(only_failed=True)}"
        return [first, *rest] if first else []

    def _said_of_earlier(self, code: int) -> None:
        """Say that the exit code is not about this run of the command alone."""
        kept = self.job.kept
        failed = 0 if kept is None else kept.earlier.get("failed", 0)
        if kept is not None and failed and code != OUTPUT_CLOSED:
            self.voice.note(f"{failed:,} failed earlier: {kept.command(only_failed=True)}")

    def _leave(self, code: int, now: Statistics | None, *, whole: bool) -> None:
        """Say how one goes on, last of all, and leave nothing of a run that has not begun."""
        kept = self.job.kept
        if kept is not None and kept.fresh and (now is None or not now.window.admitted) and kept.forget():
            kept.opened = False
            if code != OK:
                kept.take_outputs_away()
        after = aftermath(kept, code, now, whole=whole)
        if after.command is not None:
            say = self.voice.note if code == OUTPUT_CLOSED else self.voice.error
            say(f"go on with: {after.command}")
        self.told_how = True
        if self.job.json_status:
            self.voice.error(after.as_json())

    def _last_words(self) -> str:
        """How one goes on, when the process ends at once."""
        kept = self.job.kept
        return "" if kept is None or not kept.opened or self.told_how else f"go on with: {kept.command()}\n"

    def _came_to_its_end(self, now: Statistics | None) -> bool:
        ended = self.records is not None and self.records.ended and self.run is not None and not self.run.parked
        return ended and now is not None and not now.window.settled["cancelled"] and not now.window.open

    def _ending(self, error: BaseException | None) -> str:
        """What the journal keeps of the end."""
        return ending_of(self._code(error))

    def _stopped_early(self) -> bool:
        """Whether a rule of the run ended it before its input came to an end."""
        by_rule = self.run is not None and self.run.stopped is not None
        return by_rule and self.records is not None and not self.records.ended

    def _counting(self, error: BaseException | None) -> BaseException | None:
        """The error, unless it is that of a rule that stopped the run when nothing was left to do."""
        stopped = None if self.run is None else self.run.stopped
        if error is None or stopped is None or stopped.cause_kind == "refused":
            return error
        late = all(each is stopped for each in members(error)) and self._came_to_its_end(self._look())
        return None if late else error

    def _code(self, error: BaseException | None) -> int:
        error = self._counting(error)
        if error is not None and not (self.reader_left and code_of(error) != BROKEN):
            return code_of(error)
        if self.reader_left:
            return OUTPUT_CLOSED
        asked = self.interrupts.code if self.interrupts is not None else None
        now = self._look()
        if now is None or self.records is None:
            return asked or 0
        if asked is not None and (not self.records.ended or now.window.settled["cancelled"]):
            return asked
        kept = self.job.kept
        if kept is None:
            return verdict(now)
        parked = self.run is not None and self.run.parked
        return STOPPED if parked or kept.leaves else verdict(now, kept.earlier)


async def _shown(show: Callable[[], Coroutine[object, object, None]]) -> None:
    """Show progress, for as long as there is somewhere to show it: a terminal that is gone must not end the run."""
    try:
        await show()
    except (OSError, SystemExit):  # rich exits when a pipe breaks
        pass


def chosen_progress(job: Job) -> Progress:
    """How progress is shown: live where stderr is a terminal that records do not go to as well."""
    if job.voice.quiet or job.stream is not None:
        return "none"
    if job.progress != "auto":
        return job.progress
    terminal = _is_terminal(2) and not (job.output == "-" and _is_terminal(1))
    return "rich" if terminal and _can_move() else "plain"


def _can_move() -> bool:
    return os.environ.get("TERM", "dumb") != "dumb"


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def _title(path: str) -> str:
    return "stdin" if path == "-" else path
