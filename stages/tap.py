"""Somebody looks on: `tap` gives a function what passes, and never waits for it.

A tap is lossy, because the only other choices are to block the main path or to keep without bound what nobody takes.
What it does not keep up with is dropped and counted, what it raises is counted, and neither changes anything for the
items. So it is for watching (a log, a picture, a sample), not for what has to happen for every item: that is a `map`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, cast

import anyio
from anyio import create_task_group, move_on_after
from anyio.lowlevel import checkpoint

from pipeline.core.decisions import function_problems
from pipeline.core.errors import Failure, Problem, is_bug
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage, Process
from pipeline.core.placing import Place, Runner, placing_problems, runner_of
from pipeline.core.statistics import TapStatistics
from pipeline.core.streams import BURST, Inbox, Outbox
from pipeline.core.words import Field, Word
from stages.function import COUNTS, name_of

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

OnFull: TypeAlias = Literal["drop_newest", "drop_oldest"]

#: seconds that a tap has for what it still holds when its input has ended; later stages do not wait for that
GRACE_SECONDS = 1.0


@dataclass(frozen=True)
class TapStage(LeafStage):
    """Sends every item on as it is, at once, and gives its payload to a function as that keeps up."""

    function: Callable[..., object] = repr
    buffer: int = 64
    on_full: OnFull = "drop_newest"
    blocking: bool = False

    functions: ClassVar[tuple[str, ...]] = ("function",)

    @property
    def buffer_size(self) -> int:
        return BURST

    @property
    def place(self) -> Place:
        """Where the function runs."""
        return "threads" if self.blocking else "loop"

    def produces(self) -> dict[str, None]:
        return {}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found = [*super().problems(in_body=in_body)]
        if type(self.buffer) is not int or self.buffer < 1:
            found.append(Problem(self.name, "buffer", f"must be a whole number of at least 1, got {self.buffer!r}"))
        if self.on_full not in ("drop_newest", "drop_oldest"):
            text = f"must be drop_newest or drop_oldest, got {self.on_full!r}"
            found.append(Problem(self.name, "on_full", text, "a tap never blocks; use map for what must not be lost"))
        if not callable(self.function):
            return (*found, Problem(self.name, None, f"needs a function, got {self.function!r:.60}"))
        found += function_problems(self.name, None, self.function)
        return (*found, *placing_problems(self.name, self.function, self.place, None, parameters=1))

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        tap = Tap(self, runner_of(scope, self.name, self.place, 1, None))
        scope.machine.taps[self.name] = tap
        async with create_task_group() as tg:
            tg.start_soon(tap.run, name=f"penstock tap {self.name}")
            await Passing(self.name, put=tap.put).run(inbox, outbox, scope)
            outbox.close()
            await tap.finish()
            tg.cancel_scope.cancel()


@dataclass(frozen=True)
class Passing(LeafStage):
    """The main path of a tap: shows each payload, and sends the item on."""

    put: Callable[[object], None] = field(kw_only=True)

    def bind(self, scope: Scope) -> Process:
        put = self.put

        def process(item: Item, worker: Worker) -> Item:
            put(item.value)
            return item

        return process


class Tap:
    """One tap in one run: what waits for the function, and the one task that gives it out. What can change: the
    payloads that wait, and the counts."""

    def __init__(self, stage: TapStage, runner: Runner) -> None:
        self._stage = stage
        self._runner = runner
        self._waiting: deque[object] = deque()
        self._at_work = 0  #: 1 while the function has one
        self._filled = anyio.Event()
        self._done = anyio.Event()
        self._ended = False
        self._seen = self._dropped = self._failed = 0
        self._error: str | None = None

    def put(self, value: object) -> None:
        """Keep `value` for the function, or drop what there is no room for."""
        self._seen += 1
        if len(self._waiting) >= self._stage.buffer:
            self._dropped += 1
            if self._stage.on_full == "drop_newest":
                return
            self._waiting.popleft()
        self._waiting.append(value)
        self._filled.set()

    async def run(self) -> None:
        """Give payloads to the function, one at a time, until `finish`. Cancelled, it drops what it holds."""
        try:
            while self._waiting or not self._ended:
                if self._waiting:
                    await self._give(self._waiting.popleft())
                else:
                    self._filled = anyio.Event()
                    await self._filled.wait()
        finally:
            self._dropped += len(self._waiting) + self._at_work
            self._waiting.clear()
            self._at_work = 0
            self._done.set()

    async def _give(self, value: object) -> None:
        self._at_work = 1
        try:
            await self._runner.run(self._stage.function, value)
        except Exception as error:
            if is_bug(error):
                raise
            self._failed += 1
            failure = Failure.of(error, self._stage.name)
            self._error = f"{failure.type}: {failure.message}"[:200]
        self._at_work = 0
        await checkpoint()  # a function that never waits lets the items go by

    async def finish(self) -> None:
        """Wait until the function has had what was kept for it, or until the grace is over."""
        self._ended = True
        self._filled.set()
        with move_on_after(GRACE_SECONDS):
            await self._done.wait()

    def statistics(self) -> TapStatistics:
        waiting = len(self._waiting) + self._at_work
        return TapStatistics(self._stage.name, self._seen, self._dropped, self._failed, waiting, self._error)


def tap(
    function: Callable[..., object] | Callable[..., Awaitable[object]],
    *,
    name: str | None = None,
    buffer: int = 64,
    on_full: OnFull = "drop_newest",
    blocking: bool = False,
) -> TapStage:
    """Give each payload to `function`, plain or async, beside the main path, which never waits for it and never hears
    of it: `tap(print)`.

    `buffer` payloads wait for it at most; when there are more, the newest or the oldest one is dropped. After the end
    of the input it has a second for what waits. What was seen and dropped and how often it failed is in the
    `statistics()` of the run. A payload is shared with the stages that follow: look at it, do not change it. A plain
    function runs on the event loop and must not block; `blocking` runs it in a thread.
    """
    given = name or name_of("tap", function, COUNTS)
    return TapStage(given, function=function, buffer=buffer, on_full=on_full, blocking=blocking)


def _from_file(name: str, **values: object) -> TapStage:
    return tap(cast("Callable[..., object]", values.pop("call")), name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "tap",
    {
        "call": Field("call", required=True, help="module:attribute, under --allow-import"),
        "buffer": Field("count", help="payloads that wait for it at most"),
        "on_full": Field(
            "choice", choices=("drop_newest", "drop_oldest"), help="which one is dropped when there are more"
        ),
        "blocking": Field("flag", help="run it in a worker thread"),
    },
    _from_file,
    "shows each payload to a function that nothing waits for",
)
