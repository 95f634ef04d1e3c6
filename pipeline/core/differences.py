"""Where two values differ that were one: a value, and a copy of it that was made before.

What is compared is structure, never identity, because every object of a copy is another one.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

_ABSENT = object()
_ORDERED = (list, tuple, deque)


def difference(before: object, after: object, path: str) -> str | None:
    """Return where `after` is not what `before` is, as `value['list'][2]`; None if it is the same.

    Containers, dataclasses, models and other objects are compared by what is in them. An object that says by its own
    `==` that nothing has changed may have filled its private attributes meanwhile, and any object those of a
    `cached_property`. What can be looked into in no way counts as unchanged.
    """
    return _Comparison().find(before, after, path)


class _Comparison:
    """One walk through two values. What can change: `_met`, the pairs that are being compared or have been."""

    def __init__(self) -> None:
        self._met: set[tuple[int, int]] = set()

    def find(self, before: Any, after: Any, path: str) -> str | None:
        if before is after:
            return None
        if type(before) is not type(after):
            return path
        if (id(before), id(after)) in self._met:
            return None
        self._met.add((id(before), id(after)))
        if isinstance(before, Mapping):
            return self._in_mapping(cast("Mapping[Any, Any]", before), after, path)
        if isinstance(before, _ORDERED):
            return self._in_sequence(cast("Sequence[Any]", before), after, path)
        if isinstance(before, set | frozenset):
            return None if _same_set(cast("set[Any]", before), after) else path
        attributes, changed = _attributes(before), _attributes(after)
        if attributes or changed:
            return self._in_object(attributes, changed, path, forgiving=_says_equal(before, after) is True)
        return path if _says_equal(before, after) is False else None

    def _in_mapping(self, before: Mapping[Any, Any], after: Mapping[Any, Any], path: str) -> str | None:
        """By position: a key may be an object that equals nothing but itself, and the order belongs to the value."""
        if len(before) != len(after):
            odd = [key for key in (*before, *after) if (key in before) != (key in after)]
            return f"{path}[{odd[0]!r:.60}]" if odd else path
        for (key, value), (other, changed) in zip(before.items(), after.items(), strict=True):
            if self.find(key, other, path) is not None:
                return f"{path}[{key!r:.60}]"
            found = self.find(value, changed, f"{path}[{key!r:.60}]")
            if found is not None:
                return found
        return None

    def _in_sequence(self, before: Sequence[Any], after: Sequence[Any], path: str) -> str | None:
        for place, (member, changed) in enumerate(zip(before, after, strict=False)):
            found = self.find(member, changed, f"{path}[{place}]")
            if found is not None:
                return found
        return None if len(before) == len(after) else f"{path}[{min(len(before), len(after))}]"

    def _in_object(
        self, before: Mapping[str, Any], after: Mapping[str, Any], path: str, *, forgiving: bool
    ) -> str | None:
        for name in {**before, **after}:
            if forgiving and name.startswith("_"):
                continue
            found = self.find(before.get(name, _ABSENT), after.get(name, _ABSENT), f"{path}.{name}")
            if found is not None:
                return found
        return None


def _attributes(thing: object) -> dict[str, Any]:
    """What is kept in an object, in its `__dict__` and its slots; not what it has only remembered."""
    kind = type(thing)
    found: dict[str, Any] = dict(getattr(thing, "__dict__", {}))
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            value = getattr(thing, name, _ABSENT) if name not in ("__dict__", "__weakref__") else _ABSENT
            if value is not _ABSENT:
                found[name] = value
    return {name: value for name, value in found.items() if not isinstance(_declared(kind, name), cached_property)}


def _declared(kind: type, name: str) -> object:
    return next((base.__dict__[name] for base in kind.__mro__ if name in base.__dict__), None)


def _says_equal(before: Any, after: Any) -> bool | None:
    """What the `==` of a type of its own says; None if there is none, or it gives no clear answer."""
    if type(before).__eq__ is object.__eq__:
        return None
    try:
        same = before == after
        if not isinstance(same, bool):  # an array of answers
            return pickle.dumps(before) == pickle.dumps(after)
        return same or bool(before != before and after != after)  # not a number
    except Exception:
        return None


def _same_set(before: set[Any], after: set[Any]) -> bool:
    """Whether two sets have the same members, as far as members have a `==` of their own."""
    if len(before) != len(after):
        return False
    return before == after or any(type(member).__eq__ is object.__eq__ for member in (*before, *after))
