"""State that several agents change, under an explicit lock: for what cannot be passed along as immutable state.

    async with state.update() as values:        # in a task
        values["seen"] += 1
    with state.update_sync() as values:         # in a worker thread
        values["seen"] += 1

Tasks and threads take turns in one queue, in the order in which they came. An event loop never waits for a thread's
lock: the turn is handed to a task as an event of its loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import Generic, TypeVar

from anyio.lowlevel import current_token

from pipeline.core.errors import PipelineError
from pipeline.core.threads import unless_abandoned
from stages.turns import Turns

K = TypeVar("K")
V = TypeVar("V")


class SharedState(Generic[K, V]):
    """A mapping that tasks, of any event loop, and threads change in turns.

    It belongs to whoever makes it, lives as long as that wants, and may be used by several runs at once. What changes:
    the committed mapping, replaced as a whole at the end of each update.
    """

    def __init__(self, initial: Mapping[K, V]) -> None:
        self._committed: Mapping[K, V] = MappingProxyType(dict(initial))
        self._turns = Turns()

    def snapshot(self) -> Mapping[K, V]:
        """The values as they were last committed, immutable. Never waits, from anywhere."""
        return self._committed

    @property
    def waiting(self) -> int:
        """How many tasks and threads wait for their turn now."""
        return self._turns.waiting

    @asynccontextmanager
    async def update(self) -> AsyncGenerator[dict[K, V]]:
        """Wait for the turn and give the values as a dict; what it holds at the end of the block is committed.

        When the block raises or is cancelled, its changes are discarded. The copy is shallow: put new values in, do not
        change mutable ones that are in it, or the change is there without a commit. The block may wait, for a call for
        instance, and everybody else waits with it; what it waits for must not wait for its turn. Raises `PipelineError`
        inside another update by the same task. Cancelled while it waits, it leaves the queue.
        """
        async with self._turns.task():
            values = dict(self._committed)
            yield values
            self._commit(values)

    @contextmanager
    def update_sync(self) -> Generator[dict[K, V]]:
        """`update` for threads: waits in the same queue by blocking. Raises `PipelineError` in a thread in which an
        event loop runs.

        A thread cannot be cancelled: one whose visit has ended still has its turn, but its changes are discarded, and
        the block ends with `Abandoned`. In virtual time the clock stands still while a thread waits, so an update ahead
        of it must not sleep there.
        """
        _refuse_in_loop()
        with self._turns.thread():
            values = dict(self._committed)
            yield values
            self._commit(values)

    def _commit(self, values: Mapping[K, V]) -> None:
        new = MappingProxyType(dict(values))

        def change() -> None:
            self._committed = new

        unless_abandoned(change)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._committed)!r})"


def _refuse_in_loop() -> None:
    try:
        current_token()
    except RuntimeError:  # no loop runs in this thread
        return
    raise PipelineError("update_sync() would block the event loop; here, write `async with state.update() as values:`")
