"""The arguments of a tool, as its signature says: what a model is told of them, and how strictly they are read."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from pipeline.calls.schema import SchemaError
from pipeline.calls.strict_json import JSONError, read_json
from pipeline.core import ports
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.visit import Visit

if TYPE_CHECKING:
    from pydantic import BaseModel

_VISITS: Final[tuple[object, ...]] = (Visit, ports.Visit)
_KINDS: Final = MappingProxyType(
    {
        inspect.Parameter.POSITIONAL_ONLY: "is given by position alone, and a model names its arguments",
        inspect.Parameter.VAR_POSITIONAL: "stands for any number of arguments, and a model is told each by its name",
        inspect.Parameter.VAR_KEYWORD: "stands for arguments of any name, and a model is told each by its name",
    }
)


class Arguments:
    """What a function takes from a model: its JSON Schema, which JSON is read by, and the parameters that get the
    visit, which no model is told of. Raises `DefinitionError` with every parameter that cannot be offered to a model.
    """

    def __init__(self, name: str, function: Callable[..., object]) -> None:
        parameters = dict(_parameters(name, function))
        hints = _hints(name, function)
        self.visit = tuple(given for given in parameters if any(hints.get(given) is kind for kind in _VISITS))
        offered = {given: parameter for given, parameter in parameters.items() if given not in self.visit}
        problems = list(_problems(name, offered, hints))
        if problems:
            raise DefinitionError(*problems)
        self._names = {f"a{place}": given for place, given in enumerate(offered)}
        self._model = self._made(name, offered, hints)
        try:
            self.json_schema: Mapping[str, object] = _told(self._model)
        except (RuntimeError, TypeError, ValueError) as error:  # of pydantic
            raise DefinitionError(_unknown_type(name, error)) from None

    def read(self, text: str) -> dict[str, object]:
        """The arguments that `text` gives, by name. Raises `SchemaError`, in words that the model can be told."""
        from pydantic import ValidationError

        text = text if text.strip() else "{}"  # some models write nothing where nothing is asked
        try:
            read_json(text)
            read = self._model.model_validate_json(text, strict=True)
        except JSONError as error:
            raise SchemaError(f"the arguments are not valid JSON: {error}") from error
        except ValidationError as error:
            wrong = [f"{_path(each['loc'])}: {each['msg']}" for each in error.errors(include_url=False)[:5]]
            raise SchemaError("; ".join(wrong)) from error
        return {name: getattr(read, field) for field, name in self._names.items() if field in read.model_fields_set}

    def _made(
        self, name: str, offered: Mapping[str, inspect.Parameter], hints: Mapping[str, object]
    ) -> type[BaseModel]:
        """The arguments as a class, whose fields have names of our own, because a parameter may be called as a method
        of pydantic's is. A default is told; it is the function itself that has it."""
        from pydantic import ConfigDict, Field, create_model
        from pydantic_core import PydanticUndefined

        fields: dict[str, Any] = {}
        for field, given in self._names.items():
            default = offered[given].default
            told = PydanticUndefined if default is inspect.Parameter.empty else default
            fields[field] = (hints[given], Field(default=told, alias=given))
        try:
            return create_model(name, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)
        except (RuntimeError, TypeError, ValueError) as error:  # of pydantic
            raise DefinitionError(_unknown_type(name, error)) from None


def _told(model: type[BaseModel]) -> Mapping[str, object]:
    """The JSON Schema of the arguments, without what only repeats their names."""
    from pydantic.json_schema import GenerateJsonSchema

    class Untitled(GenerateJsonSchema):
        ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic has it

        def field_title_should_be_set(self, schema: Any) -> bool:
            return False

    told = model.model_json_schema(schema_generator=Untitled)
    return {key: value for key, value in told.items() if key != "title"}


def _parameters(name: str, function: Callable[..., object]) -> Iterator[tuple[str, inspect.Parameter]]:
    try:
        yield from inspect.signature(function).parameters.items()
    except (TypeError, ValueError):
        text = f"{name!r} has no signature that can be read"
        raise DefinitionError(Problem(None, "tools", text, "wrap it in a function with annotated parameters")) from None


def _hints(name: str, function: Callable[..., object]) -> Mapping[str, object]:
    """The annotations as types. Raises `DefinitionError` for one that names what is not there."""
    plain: object = function
    while isinstance(plain, partial):
        plain = cast("partial[object]", plain).func
    if not inspect.isroutine(plain):
        plain = getattr(plain, "__call__", plain)  # noqa: B004 - its annotations are asked for
    try:
        return typing.get_type_hints(plain, include_extras=True)
    except Exception as error:
        text = f"the annotations of {name!r} cannot be read: {error}"
        right = "name types that its module has when it runs, not only under TYPE_CHECKING"
        raise DefinitionError(Problem(None, "tools", text, right)) from None


def _problems(name: str, offered: Mapping[str, inspect.Parameter], hints: Mapping[str, object]) -> Iterator[Problem]:
    for given, parameter in offered.items():
        if parameter.kind in _KINDS:
            shown = str(parameter).partition(":")[0].partition("=")[0]
            yield Problem(None, "tools", f"{name!r}: {shown} {_KINDS[parameter.kind]}", "name each parameter")
        elif given not in hints:
            text = f"{name!r}: parameter {given!r} has no type, so nothing can be told of it and nothing checked"
            yield Problem(None, "tools", text, f"annotate it, as {given}: str")


def _unknown_type(name: str, error: Exception) -> Problem:
    said = str(error).partition(". ")[0].partition("\n")[0]
    return Problem(
        None, "tools", f"{name!r} takes what JSON has not: {said}", "take what JSON has, or a pydantic class"
    )


def _path(parts: tuple[object, ...]) -> str:
    return ".".join(str(part) for part in parts) or "the arguments"
