"""What an answer must look like: a pydantic class, a JSON Schema, or the short form, as one frozen value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from pipeline.calls.short_form import expanded
from pipeline.calls.strict_json import JSONError, read_json
from pipeline.core.errors import DefinitionError, PipelineError, Problem

if TYPE_CHECKING:
    from pydantic import BaseModel

SchemaLike: TypeAlias = "Schema | type[BaseModel] | Mapping[str, object]"


class SchemaError(PipelineError):
    """A text does not fit a schema; the message says what is wrong in words that the model can be told."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that answers are validated with. Make one with `Schema.of`."""

    name: str
    canonical: str  #: the JSON Schema as text; two schemas are equal when this is
    model: type[BaseModel] | None = None
    json_schema: Mapping[str, object] = field(default_factory=dict[str, object], compare=False, repr=False)

    @classmethod
    def of(cls, written: SchemaLike) -> Schema:
        """Make a schema from a pydantic class, a JSON Schema or the short form. Raises `DefinitionError`."""
        if isinstance(written, Schema):
            return written
        if isinstance(written, Mapping):
            return _named("answer", _checked(expanded(written)))
        if hasattr(written, "model_json_schema"):
            return _named(written.__name__, written.model_json_schema(), written)
        hint = "give a pydantic class, a JSON Schema, or {key: type}"
        raise DefinitionError(Problem(None, "output", f"{written!r} is not a schema", hint))

    @property
    def fields(self) -> tuple[str, ...] | None:
        """The names that an answer has for certain or may have; None when other ones are allowed too."""
        if self.model is not None:
            open_ended = self.model.model_config.get("extra") == "allow"
            return None if open_ended else tuple(self.model.model_fields)
        properties = self.json_schema.get("properties")
        if not isinstance(properties, Mapping) or self.json_schema.get("additionalProperties") is not False:
            return None
        return tuple(str(name) for name in cast("Mapping[object, object]", properties))

    def validate(self, text: str) -> object:
        """Return the object that `text` stands for: an instance of the pydantic class, else plain data.

        Strict: one JSON value and nothing around it, no NaN, no key twice. Raises `SchemaError`.
        """
        try:
            value = read_json(text)
        except JSONError as error:
            raise SchemaError(f"it is not valid JSON: {error}") from error
        if self.model is not None:
            return _as_instance(self.model, text)
        _check_against(self.json_schema, value)
        return value


def _named(name: str, json_schema: dict[str, object], model: type[BaseModel] | None = None) -> Schema:
    canonical = json.dumps(json_schema, sort_keys=True, ensure_ascii=False, default=str)
    return Schema(re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64], canonical, model, json_schema)


def _as_instance(model: type[BaseModel], text: str) -> object:
    from pydantic import ValidationError

    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        wrong = [f"{_path(each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)[:5]]
        raise SchemaError("; ".join(wrong)) from error


def _check_against(json_schema: Mapping[str, object], value: object) -> None:
    from jsonschema import Draft202012Validator, exceptions
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    # The empty registry keeps a $ref to somewhere else from being fetched over the network.
    validator = cast("Any", Draft202012Validator(json_schema, registry=Registry()))
    try:
        found = cast("Any", exceptions).best_match(validator.iter_errors(value))
    except (Unresolvable, RecursionError) as trouble:
        raise SchemaError(f"it cannot be checked: {trouble}") from trouble
    error = cast("exceptions.ValidationError | None", found)
    if error is not None:
        message = error.message if len(error.message) <= 300 else error.message[:300] + "…"
        raise SchemaError(f"{_path(tuple(error.absolute_path))}: {message}")


def _checked(json_schema: dict[str, object]) -> dict[str, object]:
    """Refuse what is no JSON Schema, and references to anywhere outside it, before any call is paid."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError as NotASchema

    try:
        Draft202012Validator.check_schema(json_schema)  # pyright: ignore[reportUnknownMemberType]
    except NotASchema as error:
        raise DefinitionError(Problem(None, "output", f"not a JSON Schema: {error.message}")) from error
    if outside := re.search(r'"\$ref": "([^#"][^"]*)"', json.dumps(json_schema, default=str)):
        message = f"$ref {outside[1]!r} points outside the schema"
        raise DefinitionError(Problem(None, "output", message, "put it under $defs and use #/$defs/NAME"))
    return json_schema


def _path(parts: tuple[object, ...]) -> str:
    return ".".join(str(part) for part in parts) or "the answer"
