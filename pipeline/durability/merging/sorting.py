"""Sorting more than fits into memory: sorted runs on disk, merged as they are read.

What is sorted are bytes: whoever adds puts the key in front, so that comparing bytes is comparing keys.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from heapq import merge
from types import TracebackType
from typing import IO

from pipeline.core.errors import WriteError

MEMORY = 64 * 1024 * 1024  #: bytes held before they are written as a run
MOST_RUNS = 32  #: files open at once; more runs are merged to one
_OVERHEAD = 60  # what an entry takes beside its bytes, about
_LENGTH = 4


class SortedRuns:
    """Takes entries in any order and gives them back sorted, holding at most `memory` bytes of them.

    What changes: what is held, and the runs written, temporary files that vanish when it is closed.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._memory = memory
        self._held: list[bytes] = []
        self._size = 0
        self._runs: list[IO[bytes]] = []
        self._files = ExitStack()

    def __enter__(self) -> SortedRuns:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._files.close()

    def add(self, entry: bytes) -> None:
        """Add one entry. Raises `WriteError` when the disk is full."""
        self._held.append(entry)
        self._size += len(entry) + _OVERHEAD
        if self._size > self._memory:
            self._spill()

    def entries(self) -> Iterator[bytes]:
        """Yield all entries, the smallest first; once."""
        self._held.sort()
        if not self._runs:
            yield from self._held
            return
        yield from merge(self._held, *map(_read, self._runs))

    def _spill(self) -> None:
        if len(self._runs) == MOST_RUNS:
            self._runs = [self._written(merge(*map(_read, self._runs)))]
        self._held.sort()
        self._runs.append(self._written(self._held))
        self._held = []
        self._size = 0

    def _written(self, entries: Iterable[bytes]) -> IO[bytes]:
        try:
            run = self._files.enter_context(tempfile.TemporaryFile(prefix="penstock-"))  # noqa: SIM115 - closed with us
            for entry in entries:
                run.write(len(entry).to_bytes(_LENGTH))
                run.write(entry)
            run.flush()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise WriteError(f"temporary files in {tempfile.gettempdir()}: writing failed: {reason}") from error
        return run


def _read(run: IO[bytes]) -> Iterator[bytes]:
    run.seek(0)
    while length := run.read(_LENGTH):
        yield run.read(int.from_bytes(length))
