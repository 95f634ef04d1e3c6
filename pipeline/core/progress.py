"""How far an input was read, so that a later run can prove that it is the same input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from pipeline.core.ports import Source


class Progress(NamedTuple):
    """How far one file of an input was read."""

    number: int  #: among the inputs, from 0
    name: str
    read: int  #: bytes
    digest: bytes  #: of those
    ended: bool  #: there were no more


@runtime_checkable
class Traced(Protocol):
    """An open source that tells how far it has read its files."""

    def trace(self) -> None:
        """Keep account from now on; asked before the first record."""
        ...

    @property
    def taken(self) -> int:
        """Bytes taken so far, from all inputs together; it costs nothing to ask."""
        ...

    def progress(self) -> Sequence[Progress]:
        """How far each file was read that was begun, and stdin; nothing of other pipes."""
        ...


@runtime_checkable
class Provable(Traced, Protocol):
    """An open source that tells whether one of its inputs, which cannot be read twice, begins as it did."""

    def expect(self, number: int, length: int) -> None:
        """Keep account, and look when so many bytes of this input are taken; asked before the first record."""
        ...

    def reached(self) -> bytes | None:
        """The digest of those bytes; None as long as there are fewer."""
        ...


@runtime_checkable
class Rereadable(Protocol):
    """A source whose inputs may be there again."""

    def differences(self, before: Sequence[Progress]) -> Sequence[str]:
        """What is another one in the inputs than it was when they were read so far, a sentence each; that there is
        more behind it is no difference. Blocks."""
        ...

    def again(self) -> Source | None:
        """The same inputs to be read without a word, ahead of the run; None if that would take them away."""
        ...
