"""Notices that a run does not move, and tells its listener what waits for what.

Progress is a root admitted, a visit finished, a record made or taken. The clock runs only while there is a root to work
on and nobody outside is waited for: a reader who has not come back for the next record is slow, and a paused run is
paused; neither is a stall. Nor is a batch that fills while the source may give more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyio import sleep

from pipeline.core.events import RunStalled
from pipeline.core.waits import wait_chain
from pipeline.core.whereabouts import fills

if TYPE_CHECKING:
    from pipeline.core.machine import Machine

#: looks at the run in the time that makes a stall; a look that comes late, after a suspension, counts as one
LOOKS = 10


class StallClock:
    """The stall detector of one run. A stall is told once, and the next one after some progress."""

    def __init__(self, machine: Machine, timeout: float) -> None:
        self._machine = machine
        self._timeout = timeout

    async def run(self) -> None:
        """Look at the run until cancelled. The one timer of this detector."""
        before: object = None
        quiet = 0
        while True:
            await sleep(self._timeout / LOOKS)
            now = self._progress()
            quiet = quiet + 1 if now == before and self._at_work() else 0
            before = now
            if quiet == LOOKS:
                self._machine.emit(RunStalled(self._timeout, wait_chain(self._machine)))

    def _progress(self) -> tuple[int, ...]:
        """Numbers of which at least one changes when something moves."""
        window, meters = self._machine.window, self._machine.meters.values()
        finished = sum(meter.emitted + meter.skipped + meter.failed for meter in meters)
        return window.admitted, finished, sum(window.counts.values()), len(self._machine.results)

    def _at_work(self) -> bool:
        """Whether it is the pipeline's turn to move."""
        machine = self._machine
        if not machine.window.roots or machine.window.paused or not machine.results.awaited:
            return False
        return machine.source_ended or bool(machine.window.waiting) or not all(map(fills, machine.window.roots))
