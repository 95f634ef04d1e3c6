"""How many connections a run may have open, so that it never runs out of file descriptors.

A library does not change the limits of its process: it keeps within them, and says so where somebody waits for it. The
command raises the soft limit when a pipeline may need more, see `pipeline.cli.descriptors`.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final, Protocol

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.core.limits import Limits
from pipeline.core.ports import Visit

RESERVE: Final = 64  #: descriptors left to the rest of the process: files, pipes, its event loop, its imports
FEWEST: Final = 4  #: connections, however little is left
MOMENT: Final = 0.25  #: seconds until it is tried again when others in the process have all descriptors
RECOVERY: Final = 5.0  #: seconds without running out after which there may be an eighth more connections

_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)


class Pool(Protocol):
    """Connections to one origin, those in use and those that wait to be used again."""

    @property
    def idle(self) -> int: ...

    @property
    def oldest(self) -> float:
        """When the idle connection that is unused for longest was used last, by `time.monotonic`; inf if none is."""
        ...

    async def close_oldest(self) -> None:
        """Close that one. Its descriptor is free afterwards."""
        ...


@dataclass(frozen=True, slots=True)
class SocketStatistics:
    """Connections of a run at one instant. `most` is None when nothing limits them."""

    busy: int
    waiting: int
    most: int | None
    descriptors: int | None  #: that the process may have open
    ran_out: int  #: how often there was none left for a connection
    idle: int = 0

    @property
    def what(self) -> str:
        return "a connection"

    def __str__(self) -> str:
        idle = f", {self.idle} idle" if self.idle else ""
        if self.most is None:
            return f"connections: {self.busy} in use{idle}"
        line = f"connections: {self.busy}/{self.most} in use{idle}, {self.waiting} wait"
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
    """Counts the connections over all models of a run: those in use, and those of `pools` that are idle.

    What is idle makes room for what is to be opened, whichever pool has it. Satisfies `ports.Hold`.
    """

    descriptors: int | None  #: that the process may have open; None: no limit
    most: int | None  #: connections at once; shrinks when the process runs out of descriptors nevertheless
    busy: int = 0
    ran_out: int = 0
    pools: list[Pool] = field(default_factory=list[Pool])
    _waiting: deque[anyio.Event] = field(default_factory=deque[anyio.Event])
    _waiting_again: deque[anyio.Event] = field(default_factory=deque[anyio.Event])  #: these go first
    _stuck: int = 0  #: calls that found no descriptor and let a moment pass
    _first_most: float = inf
    _grows_at: float = inf

    def __post_init__(self) -> None:
        self._first_most = inf if self.most is None else self.most

    @classmethod
    def of_process(cls) -> Sockets:
        """What the process has left now."""
        soft = soft_limit()
        return cls(soft, None if soft is None else max(FEWEST, soft - _open_descriptors() - RESERVE))

    @property
    def full(self) -> bool:
        return self.most is not None and self.busy >= self.most

    @property
    def idle(self) -> int:
        return sum(pool.idle for pool in self.pools)

    async def take(self, visit: Visit) -> None:
        """Count one more connection, as soon as there is room. First come, first served."""
        if self.full or self._waiting:
            with visit.waiting_to_send(self):
                await self._turn(self._waiting)
        else:
            self.busy += 1

    def give_back(self) -> None:
        self.busy -= 1
        if self.ran_out:
            self._recover()
        while not self.full and (line := self._waiting_again or self._waiting):
            self.busy += 1
            line.popleft().set()

    async def make_room(self) -> None:
        """Close an idle connection if there would be too many with the one that its caller, who is counted, opens."""
        if self.most is not None and self.busy + self.idle > self.most:
            await self._close_oldest()

    async def close_unused(self, since: float) -> None:
        """Close what was not used since then, in all pools."""
        for pool in self.pools:
            while pool.oldest < since:
                await pool.close_oldest()

    async def take_again(self) -> None:
        """Wait for room, before all who came later, because the process had no descriptor for a connection that there
        was room for: there may be only so many as there are without it."""
        self.ran_out += 1
        others = self.busy + self.idle - 1
        self.most = max(FEWEST, others if self.most is None else min(others, self.most))
        self._grows_at = anyio.current_time() + RECOVERY
        if await self._close_oldest():
            return
        self.busy -= 1
        try:
            await self._turn_again()
        except BaseException:
            self.busy += 1  # its caller gives it back
            raise

    async def _turn_again(self) -> None:
        if not self.full:  # others have the descriptors, and nobody tells when they are done with them
            self._stuck += 1
            try:
                await anyio.sleep(MOMENT)
            finally:
                self._stuck -= 1
        if self.full:
            await self._turn(self._waiting_again)
        else:
            self.busy += 1

    async def _turn(self, line: deque[anyio.Event]) -> None:
        mine = anyio.Event()
        line.append(mine)
        try:
            await mine.wait()
        except BaseException:
            if mine.is_set():  # the room that it was given goes to the next one
                self.give_back()
            else:
                line.remove(mine)
            raise

    async def _close_oldest(self) -> bool:
        pool = min(self.pools, key=lambda pool: pool.oldest, default=None)
        if pool is None or not pool.idle:
            return False
        await pool.close_oldest()
        return True

    def _recover(self) -> None:
        now = anyio.current_time()
        if self.most is not None and self.most < self._first_most and now >= self._grows_at:
            self.most = int(min(self._first_most, self.most + max(1, self.most // 8)))
            self._grows_at = now + RECOVERY

    def statistics(self) -> SocketStatistics:
        waiting = len(self._waiting) + len(self._waiting_again) + self._stuck
        return SocketStatistics(self.busy, waiting, self.most, self.descriptors, self.ran_out, self.idle)

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


def no_descriptor(errors: Iterable[BaseException]) -> bool:
    """Say whether a connection failed because the process, or the machine, had no descriptor left for it.

    Looking up a name needs one too, and does not say what it missed.
    """
    for error in errors:
        if getattr(error, "errno", None) in _NO_DESCRIPTOR:
            return True
        if isinstance(error, socket.gaierror) and not _descriptor_left():
            return True
    return False


def _descriptor_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in _NO_DESCRIPTOR
    return True


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
