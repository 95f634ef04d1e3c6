"""The short way to write a schema: `{questions: [string], score: number, label: {enum: [a, b]}}`.

An object in which every key is required and no other is allowed. A mapping that is JSON Schema already is told apart
by its keywords, so that both can be written in the same place, and in each other.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import cast

from pipeline.core.errors import DefinitionError, Problem

SCALARS = ("string", "number", "integer", "boolean", "null")

_DECISIVE = frozenset({"$schema", "$ref", "$defs"})
_COMBINING = ("anyOf", "oneOf", "allOf")
_BESIDE_TYPE_TEXT = (
    "type enum const properties required additionalProperties patternProperties items prefixItems minItems maxItems"
    " uniqueItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format"
    " description examples default minProperties maxProperties $id $comment"
)
_BESIDE_TYPE = frozenset(_BESIDE_TYPE_TEXT.split())


def is_json_schema(written: Mapping[str, object]) -> bool:
    """Say whether a mapping is JSON Schema; all others are the short form."""
    if not _DECISIVE.isdisjoint(written) or isinstance(written.get("properties"), Mapping):
        return True
    if any(_all_mappings(written.get(keyword)) for keyword in _COMBINING):
        return True
    if set(written) <= {"enum", "description"} and isinstance(written.get("enum"), list | tuple):
        return True
    kind = written.get("type")
    names = cast("list[object]", kind) if isinstance(kind, list) else [kind]
    known = (*SCALARS, "object", "array")
    return bool(names) and all(name in known for name in names) and _BESIDE_TYPE.issuperset(written)


def _all_mappings(value: object) -> bool:
    """Say whether `value` is a list of schemas, and not the short form of a field that happens to be named `oneOf`."""
    return isinstance(value, list | tuple) and all(
        isinstance(each, Mapping) for each in cast("Sequence[object]", value)
    )


def expanded(written: object, where: str = "output") -> dict[str, object]:
    """Return the JSON Schema of a short form. Raises `DefinitionError` that says where it cannot be one."""
    match written:
        case str() if written in SCALARS:
            return {"type": written}
        case str():
            close = difflib.get_close_matches(written, SCALARS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"types: {', '.join(SCALARS)}"
            raise DefinitionError(Problem(None, where, f"{written!r} is not a type", hint))
        case list() | tuple() if len(cast("Sequence[object]", written)) == 1:
            return {"type": "array", "items": expanded(cast("Sequence[object]", written)[0], f"{where}[]")}
        case Mapping() if written:
            return _object(cast("Mapping[str, object]", written), where)
        case _:
            hint = "write a type, [type] for a list, or {key: type} for an object"
            raise DefinitionError(Problem(None, where, f"{written!r} does not describe a value", hint))


def _object(written: Mapping[str, object], where: str) -> dict[str, object]:
    if is_json_schema(written):
        return dict(written)
    return {
        "type": "object",
        "properties": {str(key): expanded(value, f"{where}.{key}") for key, value in written.items()},
        "required": [str(key) for key in written],
        "additionalProperties": False,
    }
