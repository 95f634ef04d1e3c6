"""The bytes of an input as its parser gets them: unpacked, if they are gzip, which their beginning says."""

from __future__ import annotations

from hashlib import blake2b

from anyio.lowlevel import checkpoint

from stages.sources.blocks import BLOCK, BlockReader
from stages.sources.files import check_packing, reading_failed, unpacking_failed
from stages.sources.unpacking import MAGIC, BadGzip, Gunzip

DIGEST = 16  #: bytes of the hash of what was read


class Unpacked:
    """Reads an input in blocks of text. What changes: the bytes before it is known whether they are compressed."""

    def __init__(self, path: str, reader: BlockReader, *, traced: bool = False, expected: int = -1) -> None:
        self._path = path
        self._reader = reader
        self._known = False
        self._head = b""
        self._packed: Gunzip | None = None
        self.taken = 0  #: bytes of the input so far
        self.trace = blake2b(digest_size=DIGEST) if traced else None  #: a hash of those
        self._expected = expected
        self.reached: bytes | None = None  #: the hash of the first `expected` ones, once they were taken

    async def read(self) -> bytes:
        """Return the next block, at most 64 KiB or what was there to read; empty at the end. Raises `SourceError`.

        Cancellation takes effect while nothing is there to be read, or between blocks, and loses nothing.
        """
        if not self._known:
            head = await self._recognise()
            if self._packed is None:
                return head
        elif self._packed is None:
            return await self._take()
        else:
            await checkpoint()
        try:
            return await self._unpack(self._packed)
        except BadGzip as error:
            raise unpacking_failed(self._path, error) from None

    async def _recognise(self) -> bytes:
        """Return the first block; if it is compressed it is fed already."""
        while not self._head or self._head == MAGIC[:1]:
            block = await self._take()
            self._head += block
            if not block:
                break
        head, self._head = self._head, b""
        if check_packing(self._path, head):
            self._packed = Gunzip(BLOCK)
            self._packed.feed(head)
        self._known = True
        return head

    async def _unpack(self, packed: Gunzip) -> bytes:
        while not (block := packed.take()):
            more = await self._take()
            if not more:
                packed.finish()
                return b""
            packed.feed(more)
        return block

    async def _take(self) -> bytes:
        try:
            block = await self._reader.read()
        except OSError as error:
            raise reading_failed(self._path, error) from error
        if self.trace is not None:
            left = self._expected - self.taken
            if 0 <= left <= len(block):
                until = self.trace.copy()
                until.update(block[:left])
                self.reached = until.digest()
            self.trace.update(block)
        self.taken += len(block)
        return block
