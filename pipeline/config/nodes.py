"""A document as a tree of values that know where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Mark:
    """A span of the file, lines and columns counted from 1; line 0 is a place that its format does not tell.

    `origin` is set for what does not come from the file: the text of the flag that gave it.
    """

    line: int = 0
    column: int = 0
    end_line: int = 0
    end_column: int = 0
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number, a boolean or nothing.

    `text` is how it was written. `loose` says that its type was not chosen by writing it (it comes from the environment
    or a flag), so that it may be taken as text although it looks like a number. `literal` is a block of lines.
    """

    value: str | int | float | bool | None
    text: str
    mark: Mark
    loose: bool = False
    literal: bool = False
    from_environment: bool = False  #: not to be repeated in a message


@dataclass(frozen=True, slots=True)
class Listing:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a table with its value. A key is always text, as written."""

    key: str
    mark: Mark
    value: Node


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping, in the order of the file; its keys are unique."""

    entries: tuple[Entry, ...]
    mark: Mark

    def get(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.key == key), None)

    def keys(self) -> list[str]:
        return [entry.key for entry in self.entries]

    def with_entry(self, new: Entry) -> Table:
        """A table in which `new` replaces the entry of its key, or comes last."""
        if self.get(new.key) is None:
            return Table((*self.entries, new), self.mark)
        return Table(tuple(new if entry.key == new.key else entry for entry in self.entries), self.mark)


Node: TypeAlias = "Scalar | Listing | Table"


def data(node: Node) -> object:
    """The node as plain data."""
    match node:
        case Scalar():
            return node.value
        case Listing():
            return [data(item) for item in node.items]
        case Table():
            return {entry.key: data(entry.value) for entry in node.entries}


def scalars(node: Node) -> Iterator[Scalar]:
    """Every scalar below `node`."""
    match node:
        case Scalar():
            yield node
        case Listing():
            for item in node.items:
                yield from scalars(item)
        case Table():
            for entry in node.entries:
                yield from scalars(entry.value)


def describe(node: Node) -> str:
    """What was found, for an error text: `the number 42`, `a list`. Values from the environment stay unsaid."""
    match node:
        case Listing():
            return "a list"
        case Table():
            return "a mapping"
        case Scalar(from_environment=True):
            return "a value from the environment"
        case Scalar(value=None):
            return "nothing"
        case Scalar(value=bool()):
            return f"the boolean {node.text}"
        case Scalar(value=str() as text):
            return f"the text {text[:40]!r}"
        case Scalar():
            return f"the number {node.text[:40]}"
