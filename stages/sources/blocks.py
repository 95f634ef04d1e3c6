"""A file descriptor to blocks of bytes, without a thread that could hang: a wait for a pipe ends when it is cancelled.

A thread blocked in `read` on a terminal or a pipe cannot be cancelled. So whatever can be waited for is waited for,
and read when it is ready; what the system will not wait for (files, /dev/null) never keeps a reader waiting.
"""

from __future__ import annotations

import os
import stat
import sys

from anyio import CapacityLimiter, to_thread, wait_readable

BLOCK = 65536  #: bytes, the most that is read ahead


class BlockReader:
    """Reads one descriptor from start to end. Its blocking mode does not matter and is left alone: others share it.

    Nothing else may read the descriptor meanwhile: a byte taken between the wait and the read would block the loop.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._waits = sys.platform != "win32" and not stat.S_ISREG(os.fstat(fd).st_mode)
        self._limiter = CapacityLimiter(1)  # not the shared one: blocking stages may have taken all of that

    async def read(self) -> bytes:
        """Return the next block, at most `BLOCK` bytes; empty at the end. Raises `OSError`.

        Cancellation while nothing is there to be read takes effect at once and loses nothing.
        """
        while self._waits:
            try:
                await wait_readable(self._fd)
            except PermissionError:  # epoll refuses what is always ready
                self._waits = False
                break
            try:
                return os.read(self._fd, BLOCK)
            except BlockingIOError:
                continue
        return await to_thread.run_sync(os.read, self._fd, BLOCK, limiter=self._limiter)
