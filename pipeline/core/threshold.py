"""Where roots wait, before code of the user's may see them, until the journal has them: who crashes the process must be
known afterwards.

All that has come while the disk was busy goes on together, so a whole window waits no longer than one root. What waits
here holds a credit, so it is bounded.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from pipeline.core.item import Outcome
from pipeline.core.leaf import LeafStage
from pipeline.core.root import Root, first_item
from pipeline.core.topology import walk

if TYPE_CHECKING:
    from pipeline.core.machine import Machine
    from pipeline.core.stage import Stage


class Threshold:
    """What can change: who waits, in their order, and whether more will come."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._waiting: deque[Root] = deque()
        self._changed = anyio.Event()
        self._closed = False

    def add(self, root: Root) -> None:
        """Let `root` in once it is durable."""
        self._waiting.append(root)
        self._changed.set()

    def close(self) -> None:
        """Nobody comes any more."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Let in who waits, until `close`."""
        machine, waiting = self._machine, self._waiting
        while waiting or not self._closed:
            self._changed = anyio.Event()
            if not waiting and not self._closed:
                await self._changed.wait()
            durable = len(waiting)
            if machine.journal is None or not durable:
                continue
            if not await machine.journal.durable():
                return
            for _ in range(durable):
                await machine.enter(waiting.popleft())

    def clear(self) -> None:
        """End who still waits; when neither `run` nor anybody who adds is left, since either may end first."""
        while self._waiting:
            root = self._waiting.popleft()
            if root.revoked:
                root.retire()
            else:
                root.resolve(Outcome("cancelled", first_item(root)))


def runs_foreign_code(stage: Stage) -> bool:
    """Whether items may meet code that is not ours, which may take the process down with it."""
    return any(each.foreign if isinstance(each, LeafStage) else _asks(each) for each in walk(stage))


def _asks(stage: Stage) -> bool:
    """Whether a composite asks functions of the user's."""
    found: list[object] = []

    def note(stage: Stage, function: object) -> object:
        found.append(function)
        return function

    stage.watched(note)
    return any(callable(function) for function in found)
