"""A value that fits a JSON Schema, drawn by the seed; its texts show what they answer.

Types, enum, const, required, nested and recursive objects, arrays, `$ref` into `$defs`, limits of numbers, lengths and
counts, the common formats. A `pattern` is not tried to be met, so such an answer goes the way of a real misfit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, cast

DEEPEST: Final = 6  #: levels after which a recursive schema is ended as soon as it allows
ITEMS: Final = 3  #: elements of a list that may have any number
MOST_VALUES: Final = 50_000  #: in one answer; what asks for more is refused
LONGEST: Final = 100_000  #: characters of one text that asks to be longer

_FORMATS: Mapping[str, str] = {
    "date-time": "2026-01-0{}T00:00:00Z",
    "date": "2026-01-0{}",
    "time": "00:00:0{}Z",
    "email": "simulated{}@example.com",
    "uri": "https://example.com/simulated/{}",
    "uuid": "00000000-0000-4000-8000-00000000000{}",
    "duration": "PT{}S",
}


class Unmeetable(ValueError):
    """A schema asks for more than a simulated model writes."""


@dataclass(slots=True)
class Conforming:
    """Draws values for one schema. `about` is the short text that the strings show; `chance` moves with each draw."""

    root: Mapping[str, object]
    about: str
    chance: Random
    _values: int = 0  #: written so far

    def value(self) -> object:
        """Raises `Unmeetable`, or what else comes of a schema that is none."""
        return self._value(self.root, "answer", 0)

    def _value(self, schema: object, name: str, depth: int) -> object:
        self._values += 1
        if self._values > MOST_VALUES:
            raise Unmeetable(f"it has more than {MOST_VALUES:,} values")
        node = self._resolved(schema)
        if "const" in node:
            return node["const"]
        if choices := _list(node.get("enum")):
            return choices[self._below(len(choices))]
        for word in ("anyOf", "oneOf"):
            if options := _list(node.get(word)):
                return self._value(self._option(options, depth), name, depth + 1)
        match self._kind(node):
            case "object":
                return self._object(node, depth)
            case "array":
                return self._array(node, name, depth)
            case "string":
                return self._string(node, name)
            case "integer":
                return self._integer(node)
            case "number":
                return self._number(node)
            case "boolean":
                return self._below(2) == 1
            case _:
                return None

    def _resolved(self, schema: object) -> Mapping[str, object]:
        """Follow references and merge `allOf`, shallowly; a schema that is `true` or unknown allows anything."""
        node = _mapping(schema)
        for _ in range(DEEPEST):
            reference = node.get("$ref")
            if not isinstance(reference, str):
                break
            node = {**self._lookup(reference), **{key: each for key, each in node.items() if key != "$ref"}}
        for part in _list(node.get("allOf")):
            node = _merged(node, self._resolved(part))
        return node

    def _lookup(self, reference: str) -> Mapping[str, object]:
        node: object = self.root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                node = _mapping(node).get(step.replace("~1", "/").replace("~0", "~"), {})
        return _mapping(node)

    def _option(self, options: Sequence[object], depth: int) -> object:
        """Draw one of several; deep down the simplest, so that recursion ends."""
        if depth < DEEPEST:
            return options[self._below(len(options))]
        simple = [each for each in options if self._kind(self._resolved(each)) not in ("object", "array")]
        return (simple or options)[0]

    def _kind(self, node: Mapping[str, object]) -> str:
        kind = node.get("type")
        if isinstance(kind, list):
            kinds = [each for each in cast("list[object]", kind) if each != "null"]
            kind = kinds[0] if kinds else "null"
        if isinstance(kind, str):
            return kind
        if "properties" in node:
            return "object"
        if "items" in node or "prefixItems" in node:
            return "array"
        return "number" if "minimum" in node or "maximum" in node else "string"

    def _object(self, node: Mapping[str, object], depth: int) -> dict[str, object]:
        properties = _mapping(node.get("properties"))
        required = [str(each) for each in _list(node.get("required"))]
        wanted = list(properties) if depth < DEEPEST else [each for each in properties if each in required]
        wanted += [each for each in required if each not in properties]
        return {name: self._value(properties.get(name, {}), name, depth + 1) for name in wanted}

    def _array(self, node: Mapping[str, object], name: str, depth: int) -> list[object]:
        least, most = _whole(node.get("minItems"), 0), _whole(node.get("maxItems"), 2**31)
        first = _list(node.get("prefixItems"))
        if least > MOST_VALUES:
            raise Unmeetable(f"a list of it has {least:,} elements")
        count = max(least, min(most, len(first) or (ITEMS if depth < DEEPEST else 0)))
        rest = node.get("items", {})
        kinds = [first[index] if index < len(first) else rest for index in range(count)]
        return [self._value(kind, f"{name} {index}", depth + 1) for index, kind in enumerate(kinds, 1)]

    def _string(self, node: Mapping[str, object], name: str) -> str:
        form = node.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return _FORMATS[form].format(1 + self._below(9))
        take = f"{self.chance.getrandbits(16):04x}"
        text = f"[simulated {name}, take {take}] {self.about}"
        least, most = _whole(node.get("minLength"), 0), _whole(node.get("maxLength"), 2**31)
        return text.ljust(min(least, LONGEST), ".")[:most]

    def _integer(self, node: Mapping[str, object]) -> int:
        low, high = self._limits(node, 1, 10, 1)
        step = max(1, _whole(node.get("multipleOf"), 1))
        first = math.ceil(low / step)
        return (first + self._below(max(1, math.floor(high / step) - first + 1))) * step

    def _number(self, node: Mapping[str, object]) -> float:
        low, high = self._limits(node, 0.0, 1.0, 1e-3)
        drawn = round(low + (high - low) * self.chance.random(), 3)
        return float(min(high, max(low, drawn)))

    def _limits(self, node: Mapping[str, object], low: float, high: float, step: float) -> tuple[float, float]:
        """Return the least and the most; when only one is given the other keeps the usual distance."""
        least = _bound(node.get("minimum"), node.get("exclusiveMinimum"), step)
        most = _bound(node.get("maximum"), node.get("exclusiveMaximum"), -step)
        span = high - low
        if least is None and most is None:
            return low, high
        if least is None:
            return min(low, cast("float", most) - span), cast("float", most)
        return least, most if most is not None else max(high, least + span)

    def _below(self, count: int) -> int:
        return self.chance.getrandbits(32) % count


def _merged(one: Mapping[str, object], other: Mapping[str, object]) -> Mapping[str, object]:
    properties = {**_mapping(one.get("properties")), **_mapping(other.get("properties"))}
    required = [*_list(one.get("required")), *_list(other.get("required"))]
    merged = {**other, **one}
    return {**merged, "properties": properties, "required": required} if properties else merged


def _bound(inclusive: object, exclusive: object, step: float) -> float | None:
    if isinstance(inclusive, int | float):
        return inclusive
    return exclusive + step if isinstance(exclusive, int | float) else None


def _whole(value: object, default: int) -> int:
    return int(value) if isinstance(value, int | float) else default


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
