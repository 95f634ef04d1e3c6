"""The records that earlier runs have admitted, by identity: what is known is not admitted again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

SIZE: Final = 16  #: bytes of a digest

Found: TypeAlias = Literal["known", "new", "edited"]


class Known:
    """A multiset of ids, each with what was said under it. What can change: what the input has not brought again."""

    def __init__(self, records: Iterable[tuple[str, bytes]] = ()) -> None:
        self._left: dict[str, bytes] = {}
        for id, digest in records:
            self._left[id] = self._left.get(id, b"") + digest

    @property
    def left(self) -> bool:
        """Whether any has not come again."""
        return bool(self._left)

    def take(self, id: str, digest: bytes) -> Found:
        """Say what a record of the input is, and count it out if it is known."""
        left = self._left.get(id)
        if left is None:
            return "new"
        for at in range(0, len(left), SIZE):
            if left[at : at + SIZE] == digest:
                rest = left[:at] + left[at + SIZE :]
                if rest:
                    self._left[id] = rest
                else:
                    del self._left[id]
                return "known"
        return "edited"
