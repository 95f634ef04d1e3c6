"""Lines to a compressed file, as gzip members that follow each other: what is out can be unpacked at any time."""

from __future__ import annotations

import gzip
import time
from typing import Final

from anyio import move_on_after

from stages.sinks.output import LAST_WAIT, Output

SUFFIX: Final = ".gz"
EVERY: Final = 1.0  #: seconds after which what has come is packed
MUCH: Final = 1 << 20  #: bytes after which it is


class PackedOutput:
    """Satisfies what a sink writes to. What can change: the lines that wait to be packed together."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._held = bytearray()
        self._packed_at = time.monotonic()

    async def write(self, line: bytes) -> None:
        """Take `line`; it is out when its member is, within a second of writing or at the end. Raises as `Output.write`
        does."""
        self._held += line
        if len(self._held) >= MUCH or time.monotonic() - self._packed_at >= EVERY:
            await self._pack()

    async def aclose(self) -> None:
        """Pack what is left, and close. Raises `WriteError`."""
        try:
            if self._held:
                with move_on_after(LAST_WAIT, shield=True):
                    await self._pack()
        finally:
            await self._output.aclose()

    def remove_if_empty(self) -> None:
        """Take a file away that was made for this run and has nothing in it, and will have nothing."""
        if not self._held:
            self._output.remove_if_empty()

    async def _pack(self) -> None:
        member = gzip.compress(bytes(self._held), mtime=0)
        await self._output.write(member)
        self._held.clear()
        self._packed_at = time.monotonic()
