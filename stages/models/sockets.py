"""How many connections a run may have open, so that it never runs out of file descriptors.

A library does not change the limits of its process: it keeps within them, and says so where somebody waits for it. The
command raises the soft limit when a pipeline may need more, see `pipeline.cli.descriptors`.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.core.limits import Limits
from pipeline.core.ports import Visit

RESERVE: Final = 64  #: descriptors left to the rest of the process: files, pipes, its event loop, its imports
FEWEST: Final = 4  #: connections, however little is left


@dataclass(frozen=True, slots=True)
class SocketStatistics:
    """Connections of a run at one instant. `most` is None when nothing limits them."""

    busy: int
    waiting: int
    most: int | None
    descriptors: int | None  #: that the process may have open
    ran_out: int  #: how often there was none left for a connection

    def __str__(self) -> str:
        if self.most is None:
            return f"connections: {self.busy} in use"
        line = f"connections: {self.busy}/{self.most} in use, {self.waiting} wait"
        if self.waiting or self.ran_out:
            line += f"; {self.why()}"
        return line

    def why(self) -> str:
        """What limits them, and what to do about it."""
        return (
            f"the limit of open files is {self.descriptors}, which leaves {self.most} connections, and "
            f"{self.busy + self.waiting} calls want one; raise it with `ulimit -n {_round(self.busy + self.waiting)}`"
        )


@dataclass(slots=True, eq=False)
class Sockets:
    """Counts the connections in use over all models of a run. Satisfies `ports.Hold`."""

    descriptors: int | None  #: that the process may have open; None: no limit
    most: int | None  #: connections at once; shrinks when the process runs out of descriptors nevertheless
    busy: int = 0
    ran_out: int = 0
    _waiting: deque[anyio.Event] = field(default_factory=deque[anyio.Event])

    @classmethod
    def of_process(cls) -> Sockets:
        """What the process has left now."""
        soft = soft_limit()
        return cls(soft, None if soft is None else max(FEWEST, soft - _open_descriptors() - RESERVE))

    @property
    def full(self) -> bool:
        return self.most is not None and self.busy >= self.most

    async def take(self, visit: Visit) -> None:
        """Count one more connection, as soon as there is room. First come, first served."""
        if self.full or self._waiting:
            mine = anyio.Event()
            self._waiting.append(mine)
            try:
                with visit.waiting(self):
                    await mine.wait()
            except BaseException:
                if mine.is_set():  # the room that it was given goes to the next one
                    self.give_back()
                else:
                    self._waiting.remove(mine)
                raise
        else:
            self.busy += 1

    def give_back(self) -> None:
        self.busy -= 1
        while self._waiting and not self.full:
            self.busy += 1
            self._waiting.popleft().set()

    def out_of_descriptors(self) -> None:
        """A connection could not be opened for want of a descriptor: from now on fewer than are in use now."""
        self.ran_out += 1
        self.most = max(FEWEST, min(self.busy - 1, self.most or self.busy))

    def statistics(self) -> SocketStatistics:
        return SocketStatistics(self.busy, len(self._waiting), self.most, self.descriptors, self.ran_out)

    def __str__(self) -> str:
        return f"a connection ({self.statistics().why()})"

    def holders(self) -> Sequence[Visit]:
        return ()


@dataclass(frozen=True, slots=True)
class WithinSockets:
    """Sends an attempt when there is a connection for it, or room to open one."""

    sockets: Sockets

    def __call__(self, call: Call, /) -> Call:
        sockets = self.sockets

        async def connected(request: Request) -> Reply:
            await sockets.take(request.visit)
            try:
                return await call(request)
            finally:
                sockets.give_back()

        return connected


def sockets_of(limits: Limits) -> Sockets:
    """The count that all models of a run share."""
    return limits.shared("sockets", Sockets.of_process)


def soft_limit() -> int | None:
    """How many descriptors this process may have open, None where nothing says so."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _open_descriptors() -> int:
    for place in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(place))
        except OSError:
            pass
    return RESERVE


def _round(connections: int) -> int:
    """A limit of open files that is enough, as people write it."""
    enough = 1024
    while enough < connections + 2 * RESERVE:
        enough *= 2
    return enough
