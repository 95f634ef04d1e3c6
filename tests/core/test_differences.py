"""Where a value is no longer what its copy is: exact, and without blame for what only looks changed."""

from __future__ import annotations

import array
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, PrivateAttr

from pipeline.core.differences import difference
from pipeline.core.state import ConversationState, Message, Outputs


class Opaque:
    """Equal to nothing but itself."""

    def __init__(self, inside: object = None) -> None:
        self.inside = inside


class Empty:
    pass


class Slotted:
    __slots__ = ("inside", "unset")

    def __init__(self, inside: object) -> None:
        self.inside = inside


class Lazy:
    """Remembers what it has worked out, and says that this makes no difference."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self._text: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lazy) and self.words == other.words

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def length(self) -> int:
        return len(self.words)

    def text(self) -> str:
        self._text = " ".join(self.words)
        return self._text


class Entity:
    """Equal when the number is."""

    def __init__(self, number: int, tags: list[str]) -> None:
        self.number = number
        self.tags = tags

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entity) and self.number == other.number

    __hash__ = None  # type: ignore[assignment]


class Unsure:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class Pair(NamedTuple):
    left: list[int]
    right: object


@dataclass
class Plan:
    steps: list[str]
    score: float = math.nan
    owner: Opaque = field(default_factory=Opaque)


@dataclass(frozen=True, slots=True)
class Frozen:
    steps: list[str]


class Model(BaseModel):
    model_config = {"extra": "allow"}
    name: str
    tags: list[str] = []
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


def shared() -> list[Any]:
    inner = [1]
    return [inner, inner]


def ring() -> list[Any]:
    loop: list[Any] = [1]
    loop.append(loop)
    return loop


CHANGES: list[tuple[object, Callable[[Any], object], str]] = [
    ({"list": [1, 2, 3]}, lambda v: v["list"].__setitem__(2, 4), "value['list'][2]"),
    ({"list": [1, 2]}, lambda v: v["list"].append(3), "value['list'][2]"),
    ({"list": [1, 2]}, lambda v: v["list"].pop(), "value['list'][1]"),
    ({"a": 1}, lambda v: v.update(b=2), "value['b']"),
    ({"a": 1, "b": 2}, lambda v: v.pop("a"), "value['a']"),
    ({"a": 1, "b": 2}, lambda v: v.update(a=v.pop("a")), "value['a']"),
    ({"a": 1}, lambda v: v.update(a=True), "value['a']"),
    ({"a": {1, 2}}, lambda v: v["a"].add(3), "value['a']"),
    ({"a": {1, 2}}, lambda v: (v["a"].discard(1), v["a"].add(3)), "value['a']"),
    (OrderedDict(a=[1]), lambda v: v["a"].clear(), "value['a'][0]"),
    (deque([1, 2]), lambda v: v.rotate(1), "value[0]"),
    ((1, [2]), lambda v: v[1].append(3), "value[1][1]"),
    (Pair([1], None), lambda v: v.left.append(2), "value[0][1]"),
    (bytearray(b"ab"), lambda v: v.append(1), "value"),
    (array.array("d", [1.0]), lambda v: v.append(math.nan), "value"),
    (Plan(["a"]), lambda v: v.steps.append("b"), "value.steps[1]"),
    (Plan(["a"], 1.0), lambda v: setattr(v, "score", math.nan), "value.score"),
    (Plan(["a"]), lambda v: setattr(v, "score", 1.0), "value.score"),
    (Frozen(["a"]), lambda v: v.steps.append("b"), "value.steps[1]"),
    (Opaque([1]), lambda v: v.inside.append(2), "value.inside[1]"),
    (Opaque(), lambda v: setattr(v, "more", 2), "value.more"),
    (Empty(), lambda v: setattr(v, "more", 2), "value.more"),
    (Slotted([1]), lambda v: v.inside.append(2), "value.inside[1]"),
    (Slotted(1), lambda v: setattr(v, "unset", 2), "value.unset"),
    (SimpleNamespace(a=[1]), lambda v: v.a.append(2), "value.a[1]"),
    (Model(name="a", tags=["x"]), lambda v: v.tags.append("y"), "value.tags[1]"),
    (Model(name="a"), lambda v: setattr(v, "name", "b"), "value.name"),
    (Model(name="a"), lambda v: v._cache.update(a=1), "value.__pydantic_private__['_cache']['a']"),
    (Entity(1, ["a"]), lambda v: v.tags.append("b"), "value.tags[1]"),
    (Lazy(["a"]), lambda v: v.words.append("b"), "value.words[1]"),
    ([Opaque([1])], lambda v: v[0].inside.append(2), "value[0].inside[1]"),
    ({Opaque(): [1]}, lambda v: next(iter(v.values())).append(2), "value[<tests."),
    (shared(), lambda v: v[1].append(2), "value[0][1]"),
    (ring(), lambda v: v[1].append(2), "value[2]"),
    (Outputs().add("plan", {"x": [1]}), lambda v: v["plan"]["x"].append(2), "value['plan']['x'][1]"),
    (ConversationState(outputs=Outputs().add("a", [1])), lambda v: v.outputs["a"].append(2), "value[1]['a'][1]"),
]


@pytest.mark.parametrize(
    ("value", "change", "where"), CHANGES, ids=[f"{at}-{where}" for at, (_, _, where) in enumerate(CHANGES)]
)
def test_a_change_is_found_where_it_was_made(value: object, change: Callable[[Any], object], where: str) -> None:
    before = deepcopy(value)
    assert difference(before, value, "value") is None
    change(value)
    found = difference(before, value, "value")
    assert found is not None
    assert found.startswith(where) if where.endswith(".") else found == where


SAME: list[tuple[object, Callable[[Any], object]]] = [
    (1, lambda v: v + 1),
    (math.nan, lambda v: v),
    ([math.nan, Decimal("nan")], lambda v: sorted(v, key=str)),
    (object(), lambda v: None),
    ({"a": datetime(2024, 1, 1), "b": Path("x"), "c": Decimal(1)}, lambda v: (str(v["b"]), hash(v["b"]))),
    (Lazy(["a"]), lambda v: (v.text(), v.length)),
    (Opaque([1]), lambda v: v.inside[0]),
    ({Opaque(), Opaque()}, len),
    ({Opaque(): 1}, len),
    (Plan(["a"]), repr),
    (Unsure(), repr),
    (Model(name="a"), lambda v: (v.model_dump_json(), v._cache)),
    (ring(), len),
    (array.array("d", [math.nan]), list),
    (Outputs().add("a", 1).add("b", [2]), dict),
    (ConversationState((Message("user", "x"),)), lambda v: v.add_message(Message("user", "y"))),
]


@pytest.mark.parametrize(("value", "use"), SAME)
def test_what_is_only_read_or_remembered_is_no_change(value: object, use: Callable[[Any], object]) -> None:
    before = deepcopy(value)
    use(value)
    assert difference(before, value, "value") is None
