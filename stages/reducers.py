"""One value of what several branches wrote under the same name, in declaration order whatever the timing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Literal, TypeAlias, cast

from pipeline.core.errors import ItemError, is_bug
from pipeline.core.plain import plain

ReducerName: TypeAlias = Literal["list", "concat", "merge", "sum", "first", "last"]
#: a name, or a function that makes one value of two
Reducer: TypeAlias = ReducerName | Callable[[Any, Any], object]

REDUCERS: tuple[ReducerName, ...] = ("list", "concat", "merge", "sum", "first", "last")


def reduced(key: str, reducer: Reducer, written: Mapping[str, object]) -> object:
    """Make one value of what branches have written under `key`, given by branch. If no branch has, it is the empty one
    of its kind, or None. Raises `ItemError`."""
    values = list(written.values())
    match reducer:
        case "list":
            return values
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "sum":
            return sum(cast("list[float]", _all(key, written, "sum takes numbers", _number)))
        case "merge":
            merged: dict[object, object] = {}
            for mapping in _all(key, written, "merge takes mappings", _mapping):
                merged.update(cast("Mapping[object, object]", mapping))
            return merged
        case "concat":
            return _concatenated(key, written)
        case _:
            return _folded(key, reducer, values)


def _all(key: str, written: Mapping[str, object], takes: str, read: Callable[[object], object | None]) -> list[object]:
    """What `read` makes of each value. Raises `ItemError` for the first one of which it makes None."""
    values: list[object] = []
    for branch, value in written.items():
        taken = read(value)
        if taken is None:
            text = f"{takes}, got {type(value).__name__} for {key!r} from branch {branch!r}"
            raise ItemError(text, type="ReducerError")
        values.append(taken)
    return values


def _number(value: object) -> object | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _mapping(value: object) -> object | None:
    data = cast("object", value) if isinstance(value, Mapping) else plain(value)  # a pydantic model is one too
    return cast("object", data) if isinstance(data, Mapping) else None


def _text(value: object) -> object | None:
    return value if isinstance(value, str) else None


def _sequence(value: object) -> object | None:
    return cast("object", value) if isinstance(value, list | tuple) else None


def _concatenated(key: str, written: Mapping[str, object]) -> object:
    """Texts with a blank line between them, or lists one behind the other."""
    takes = "concat takes texts, or lists"
    if isinstance(next(iter(written.values()), ""), str):
        return "\n\n".join(cast("list[str]", _all(key, written, takes, _text)))
    lists = cast("list[list[object]]", _all(key, written, takes, _sequence))
    return [value for values in lists for value in values]


def _folded(key: str, reducer: Callable[[Any, Any], object], values: list[object]) -> object:
    try:
        return reduce(reducer, values) if values else None
    except Exception as error:
        if isinstance(error, ItemError) or is_bug(error):
            raise
        name = getattr(reducer, "__name__", type(reducer).__name__)
        text = f"reducer {name} of {key!r} raised {type(error).__name__}: {error}"
        raise ItemError(text, type="ReducerError") from error
