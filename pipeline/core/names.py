"""Checks the names that a template uses against those that exist where it stands, with the nearest right word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from difflib import get_close_matches
from itertools import islice
from typing import NamedTuple, Protocol, TypeAlias, cast

#: The fields that a value is known to have: their names, or a mapping that says what is known of each (None: nothing).
Fields: TypeAlias = "Mapping[str, Fields | None] | AbstractSet[str]"


class Reads(Protocol):
    """What is asked of a template or expression."""

    @property
    def names(self) -> frozenset[str]: ...

    @property
    def paths(self) -> frozenset[tuple[str, ...]]: ...


class Unknown(NamedTuple):
    """A name that does not exist there: the sentence after "the template …", and the nearest right word."""

    message: str
    hint: str | None


def unknown_names(template: Reads, available: Mapping[str, Fields | None]) -> list[Unknown]:
    """Return which names and fields `template` reads that do not exist, in alphabetical order, each mistake once.

    `available` says what is known of each name's fields: None is nothing, an empty collection that there are none.
    """
    found = [
        Unknown(f"uses {name!r}; available here: {join_names(available)}", suggestion(name, available))
        for name in sorted(template.names - available.keys())
    ]
    seen: set[tuple[str, ...]] = set()
    for path in sorted(template.paths):
        wrong = _first_wrong(path, available)
        if wrong is not None and wrong[0] not in seen:
            seen.add(wrong[0])
            found.append(wrong[1])
    return found


def _first_wrong(
    path: tuple[str, ...], available: Mapping[str, Fields | None]
) -> tuple[tuple[str, ...], Unknown] | None:
    """The shortest prefix of `path` that does not exist, unless its head is missing or nothing is known of it."""
    known = available.get(path[0])
    for depth, key in enumerate(path[1:], start=1):
        if known is None:
            return None
        if key not in known:
            owner = ".".join(path[:depth])
            has = f"{owner!r} has: {join_names(known)}" if known else f"{owner!r} has no declared fields"
            return path[: depth + 1], Unknown(f"uses {'.'.join(path[: depth + 1])!r}; {has}", suggestion(key, known))
        known = known[key] if isinstance(known, Mapping) else None
    return None


def fields_of(schema: Mapping[str, object]) -> Fields | None:
    """The fields that a JSON Schema promises; None when it leaves them open.

    An object that lists its properties has those, unless it says that others may come.
    """
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties", False) is not False:
        return {} if schema.get("type") in ("string", "number", "integer", "boolean") else None
    return {
        str(name): fields_of(cast("Mapping[str, object]", inner)) if isinstance(inner, Mapping) else None
        for name, inner in cast("Mapping[object, object]", properties).items()
    }


def suggestion(word: str, known: Iterable[str]) -> str | None:
    """`did you mean 'concurrency'?`, or None when nothing known is near."""
    # Both lengths are bounded, because a hostile file would make the comparison take minutes.
    near = get_close_matches(word[:60], [name for name in islice(known, 200) if len(name) <= 60], n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def join_names(names: Iterable[str], most: int = 20) -> str:
    """The names as a list for a message, shortened when there are many."""
    names = list(names)
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "nothing"
