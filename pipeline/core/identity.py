"""What a record that brings no id is called: by a hash of what it says, and a number when that is said again.

It does not depend on the position, so that a resumed run knows its records again in an input that has grown.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, Generic, NamedTuple, TypeVar

from pipeline.core.codec import canonical

#: Distinct contents, and distinct ids, that are remembered. A repeat that comes later than this many others is not
#: noticed as one, which is the price of reading endless input in bounded memory.
HORIZON: Final = 32_768

V = TypeVar("V")


class Recent(Generic[V]):
    """The keys last used, and a value for each."""

    def __init__(self, most: int = HORIZON) -> None:
        self._most = most
        self._values: OrderedDict[bytes | str, V] = OrderedDict()

    def get(self, key: bytes | str) -> V | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: bytes | str, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._most:
            self._values.popitem(last=False)


class Identified(NamedTuple):
    """The id of a record, and what it has in common with its repetitions: the id without its number."""

    id: str
    name: str


class Contents:
    """Gives records ids by what they say. What changes: the contents seen lately."""

    def __init__(self, most: int = HORIZON) -> None:
        self._seen = Recent[int](most)

    def of_content(self, value: object) -> Identified:
        """Give 16 hex digits of the content of a record; its second occurrence ends in `#2`, the third in `#3`. Raises
        `NotJson`."""
        return self.of_bytes(canonical(value))

    def of_bytes(self, data: bytes) -> Identified:
        """Give the same of bytes that could not be read."""
        digest = blake2b(data, digest_size=8).digest()
        count = (self._seen.get(digest) or 0) + 1
        self._seen.put(digest, count)
        name = digest.hex()
        return Identified(name if count == 1 else f"{name}#{count}", name)
