"""How the bytes of a record become text: strictly, and so that a fault can be told by its byte."""

from __future__ import annotations

import codecs
from dataclasses import dataclass


class BadByte(Exception):
    """Bytes are not text in the encoding; `at` counts them from 0."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Charset:
    """An encoding in which bytes below 128 are ASCII, so that lines and quotes are found before anything is decoded."""

    name: str = "utf-8"

    @property
    def is_utf8(self) -> bool:
        return self.name == "utf-8"

    def text(self, data: bytes) -> str:
        """Decode a whole record. Raises `BadByte`."""
        try:
            return data.decode(self.name)
        except UnicodeDecodeError as error:
            title = "UTF-8" if self.is_utf8 else self.name
            raise BadByte(error.start, f"byte 0x{data[error.start]:02x} is not {title}") from None

    def excerpt(self, data: bytes) -> str:
        """Decode what cannot be read, each byte at fault as an escape."""
        return data.decode(self.name, "backslashreplace")

    def size(self, text: str) -> int:
        """Return how many bytes `text`, which was decoded, has in the input."""
        return len(text.encode(self.name))


UTF8 = Charset()


def charset(name: str) -> Charset:
    """Return the encoding with this name. Raises `ValueError`, whose text says what is wrong with it."""
    try:
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise ValueError(f"there is no encoding {name!r:.60}") from None
    if found == "utf-8":
        return UTF8
    if not _extends_ascii(found):
        raise ValueError(f"{found} cannot be read line by line; convert it first: iconv -f {found} -t UTF-8")
    return Charset(found)


def _extends_ascii(name: str) -> bool:
    try:
        texts = ("\\u0041", "x" * 100)  # no escapes, and not idna, which has a longest word
        whole = all(text.encode().decode(name) == text and text.encode(name) == text.encode() for text in texts)
        return whole and all(bytes([n]).decode(name) == chr(n) for n in range(128))
    except (LookupError, ValueError):
        return False
