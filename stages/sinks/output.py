"""Lines to a file descriptor, whole or not at all where that can be had, without ever blocking the event loop.

A full pipe blocks the process that writes to it, unless it is asked first: after `poll` says that there is room, a
write of at most `PIPE_BUF` bytes is taken at once, whatever the descriptor's blocking mode, which is shared with others
and so is not ours to change. Files do not wait for a reader and are written directly.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from contextlib import suppress
from typing import TextIO

from anyio import ResourceGuard, move_on_after, wait_writable
from anyio.lowlevel import checkpoint

from pipeline.core.errors import SinkClosed, WriteError
from pipeline.core.visible import visible

#: Bytes written to a file between two points where other tasks may run.
TURN = 65536

#: Seconds that closing waits for a reader to take the rest of a line that was begun.
LAST_WAIT = 1.0

_CHUNK: int = getattr(select, "PIPE_BUF", 512)


class Output:
    """A descriptor that is written in whole lines. What changes: the rest of a line that was cut by cancellation.

    When a write is cancelled in the middle of a line, its rest goes out before the next line, or on closing, so that
    a reader never sees a torn line followed by another one. What a terminal would obey is shown to it instead.
    """

    def __init__(self, fd: int, name: str, *, owned: bool, terminal: bool = False) -> None:
        self._fd = fd
        self._name = name
        self._owned = owned
        self._terminal = terminal
        self._regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self._poll = None if self._regular or sys.platform == "win32" else select.poll()
        if self._poll is not None:
            self._poll.register(fd, select.POLLOUT)
        self._guard = ResourceGuard("writing to")
        self._rest = memoryview(b"")
        self._since_turn = 0
        self.created: str | None = None  #: the path of a file that is ours to remove while nothing is in it

    async def write(self, line: bytes) -> None:
        """Write `line`. It has been taken by the system when this returns. One writer at a time.

        Raises `SinkClosed` when the reader has left and `WriteError` when the system refuses. Cancellation takes
        effect while the reader keeps us waiting; for a file, between lines.
        """
        if self._terminal:
            line = visible(line.decode()).encode()
        with self._guard:
            if self._since_turn >= TURN:
                # Before the write: cancellation after it would make a line that is out look as if it were not.
                self._since_turn = 0
                await checkpoint()
            self._since_turn += len(line)
            if self._poll is not None:
                await self._send(line)
            else:
                self._append(line)

    async def aclose(self) -> None:
        """Write the rest of a begun line if the reader takes it within a second, then close what is ours."""
        try:
            if self._rest:
                with move_on_after(LAST_WAIT, shield=True):
                    await self._send(b"")
        except (SinkClosed, WriteError):
            pass  # nobody can be given the rest, and what cut the line is on its way up already
        finally:
            if self._owned:
                self._close()

    def remove_if_empty(self) -> None:
        """Take a file away that was made for this run and has nothing in it."""
        with suppress(OSError):
            if self.created is not None and os.fstat(self._fd).st_size == 0:
                os.unlink(self.created)

    def _close(self) -> None:
        try:
            os.close(self._fd)
        except OSError as error:  # a network file system reports a full disk only here
            raise self._failed(error) from error

    async def _send(self, line: bytes) -> None:
        """Write to a pipe, socket or terminal, asking before each piece."""
        if self._rest:
            await self._send_rest()
        if line:
            self._rest = memoryview(line)
            try:
                await self._send_rest()
            except BaseException:
                if len(self._rest) == len(line):  # nothing of it is out, so it need not be finished
                    self._rest = memoryview(b"")
                raise

    async def _send_rest(self) -> None:
        must_wait = self._poll is not None and not self._poll.poll(0)
        while self._rest:
            try:
                if must_wait:
                    await wait_writable(self._fd)
                written = os.write(self._fd, self._rest[:_CHUNK])
            except BlockingIOError:
                must_wait = True  # another process has filled it since we asked
                continue
            except OSError as error:
                self._rest = memoryview(b"")
                raise self._failed(error) from error
            self._rest = self._rest[written:]
            must_wait = self._poll is not None and not self._poll.poll(0)

    def _append(self, line: bytes) -> None:
        """Write to a file: the whole line, or, when the disk is full, nothing of it."""
        view, written = memoryview(line), 0
        try:
            while written < len(line):
                written += os.write(self._fd, view[written:])
        except OSError as error:
            self._take_back(written)
            raise self._failed(error) from error

    def _take_back(self, written: int) -> None:
        if not written or not self._regular:
            return
        try:
            os.ftruncate(self._fd, os.lseek(self._fd, 0, os.SEEK_CUR) - written)
        except OSError:
            pass  # the write's own error says what is wrong

    def _failed(self, error: OSError) -> SinkClosed | WriteError:
        if isinstance(error, (BrokenPipeError, ConnectionResetError)):
            return SinkClosed(f"{self._name}: the reader has closed it")
        return WriteError(f"{self._name}: writing failed: {(error.strerror or str(error)).lower()}")


class StreamOutput:
    """Lines to a text stream that has no descriptor: stdout in a notebook, or where a test has replaced it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    async def write(self, line: bytes) -> None:
        """Write `line` and flush."""
        await checkpoint()
        self._stream.write(line.decode())
        self._stream.flush()

    def remove_if_empty(self) -> None:
        """There is no file."""

    async def aclose(self) -> None:
        """Leave the stream open, it is not ours."""
