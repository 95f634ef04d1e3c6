"""Compressed bytes to what they were made of, a piece at a time: however much a byte unpacks to, no more is held."""

from __future__ import annotations

import zlib

MAGIC = b"\x1f\x8b"  #: how gzip begins; no text in UTF-8 can

SUFFIX = ".gz"

_WITH_HEADER = 31  # what zlib calls a gzip header and the largest window


class BadGzip(Exception):
    """The bytes are not gzip, or damaged, or end too early; the text says so and where."""


class Gunzip:
    """Unpacks gzip, several members one after the other included. What changes: how far it is.

    Feed it when `take` returns nothing, then take until that is so again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._member: zlib._Decompress | None = None  # pyright: ignore[reportPrivateUsage]
        self._waiting = b""
        self._more = False  # zlib may hold more than it could give
        self._members = 0
        self._fed = 0
        self._given = 0

    def feed(self, data: bytes) -> None:
        """Add compressed bytes."""
        self._fed += len(data)
        self._waiting += data

    def take(self) -> bytes:
        """Return up to `most` bytes; nothing if more has to be fed first. Raises `BadGzip`."""
        while self._waiting or self._more:
            member = self._member or self._next_member()
            if member is None:
                return b""
            out = self._unpack(member)
            if out:
                self._given += len(out)
                return out
        return b""

    def finish(self) -> None:
        """Raise `BadGzip` if the bytes ended within what was packed."""
        if self._member is not None or not self._members:
            raise BadGzip(f"the compressed data ends too early, {self._where()}")

    def _next_member(self) -> zlib._Decompress | None:  # pyright: ignore[reportPrivateUsage] - it has no other name
        if self._members:
            self._waiting = self._waiting.lstrip(b"\0")  # what is stored in blocks is filled up with zeros
        if self._waiting:
            self._member = zlib.decompressobj(_WITH_HEADER)
        return self._member

    def _unpack(self, member: zlib._Decompress) -> bytes:  # pyright: ignore[reportPrivateUsage]
        try:
            out = member.decompress(self._waiting, self._most)
        except zlib.error as error:
            reason = str(error).rpartition(": ")[2]
            raise BadGzip(f"the compressed data is damaged ({reason}), {self._where()}") from None
        self._more = len(out) == self._most and not member.eof
        self._waiting = member.unused_data if member.eof else member.unconsumed_tail
        if member.eof:
            self._member = None
            self._members += 1
        return out

    def _where(self) -> str:
        return f"after {self._fed - len(self._waiting):,} bytes, {self._given:,} unpacked"
