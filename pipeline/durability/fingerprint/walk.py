"""One walk through the definitions of a pipeline, which writes down what stands in each option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from pipeline.calls.parameters import Parameters
from pipeline.calls.schema import Schema
from pipeline.core.decisions import Misread
from pipeline.core.errors import DefinitionError
from pipeline.core.joins import Join
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Chain, Stage
from pipeline.core.templates import Expression, Template
from pipeline.durability.fingerprint.code import name_of
from pipeline.durability.fingerprint.effects import Option, is_aside, is_known, options_of
from pipeline.durability.fingerprint.found import At, Found
from pipeline.durability.fingerprint.keys import joined
from pipeline.durability.fingerprint.objects import Objects
from pipeline.durability.fingerprint.values import JSON, hidden, is_default, is_plain, is_secret, number


class Walk:
    """What can change: `found`."""

    def __init__(self, found: Found) -> None:
        self._found = found
        self._objects = Objects(found, self)

    def pipeline(self, pipeline: Pipeline) -> None:
        self.options(At("pipeline"), pipeline)

    # -- options ------------------------------------------------------------------------------------------------

    def options(self, at: At, thing: object, owner: object = None, under: At | None = None) -> None:
        """The options of a definition, each under its name. Those of a part of `owner` that stand beside its own are
        `under` the part all the same where both have the name."""
        taken = {option.called for option in options_of(type(owner)).values()} if under is not None else ()
        for field, option in options_of(type(thing)).items():
            if option.effect is not None:
                default = is_default(field, value := cast(object, getattr(thing, field.name)))
                base = under if under is not None and option.called in taken else at
                here = base.step(option.called, option.effect, default=default)
                self._option(at, here, option, value, thing)

    def _option(self, around: At, at: At, option: Option, value: object, owner: object) -> None:
        if option.hidden and isinstance(value, Mapping):
            self._hidden(at, cast("Mapping[str, str]", value))
        elif option.beside and (inner := _with_options(value)) is not None:
            self.options(At(around.key, at.effect, at.default), inner, owner, at)
        else:
            self.value(at, value, option.called if option.users else "")

    def _hidden(self, at: At, values: Mapping[str, str]) -> None:
        """Values that are not shown. Those of secrets are left out, because they change while all else stays."""
        for name, value in values.items():
            if is_secret(name):
                self._found.put(at.step(name, "operational"), "[secret]")
            else:
                self._found.put(at.step(name), hidden(value))

    def value(self, at: At, value: object, name: str = "") -> None:
        """What stands in an option; `name` is what it is called, if that may tell that it is a secret."""
        match value:
            case Stage():
                self._chain(at, value)
            case Template() | Expression() | Misread():
                self._found.put(at, self._found.read(at, value.source, name))
            case Join():
                self._join(at, value)
            case Schema():
                self._schema(at, value)
            case bool():
                self._found.put(at, value)
            case int() | float() if type(value) in (int, float):
                self._found.put(at, number(value))
            case Mapping():
                for key, each in cast("Mapping[object, object]", value).items():
                    self._item(at.step(str(key)), each, name if is_secret(name) else str(key))
            case list() | tuple():
                self._several(at, cast("Sequence[object]", value), name)
            case _ if is_known(type(value)):
                self._found.put(at.step("kind"), name_of(type(value)))
                self.options(at, value)
            case _ if is_plain(value):
                self._found.put(at, self._found.read(at, value, name))
            case _:
                self._objects.put(at, value)

    def _item(self, at: At, value: object, name: str) -> None:
        """A member of a mapping: numbers are kept as they were written, because a template shows them so."""
        if value is None or isinstance(value, bool | int | float | str | Mapping):
            self._found.put(at, self._found.read(at, cast(object, value), name))
        else:
            self.value(at, value, name)

    def _several(self, at: At, values: Sequence[object], name: str) -> None:
        """Members by their label, name or number, which are kept in their order; plain values as they are."""
        if _are_labelled(values):
            members = {str(label): value for label, value in cast("Sequence[tuple[object, object]]", values)}
            self._found.put(at, [*members])
        elif not values or all(is_plain(each) and not is_known(type(each)) for each in values):
            self._found.put(at, self._found.read(at, values, name))
            return
        else:
            names = [_name(each) for each in values]
            self._found.put(at, cast("list[JSON]", names))
            called = all(_is_called(each) for each in values) and len(set(names)) == len(names)
            numbers = [str(number) for number, _ in enumerate(values, start=1)]
            members = dict(zip(names if called else numbers, values, strict=True))
        for label, value in members.items():
            self.value(at.step(label), value, name if not name or is_secret(name) else label)

    # -- stages -------------------------------------------------------------------------------------------------

    def _chain(self, at: At, stage: Stage) -> None:
        """The names of stages in a row, and the stages themselves."""
        parts = list(_parts(stage))
        self._found.put(at, [part.name for part in parts if not is_aside(type(part))])
        for part in parts:
            own = At(joined("stages", part.name), "operational" if is_aside(type(part)) else at.effect)
            self._found.put(own.step("kind"), name_of(type(part)))
            self._objects.source(own.step("kind"), type(part))
            self.options(own, part)

    def _join(self, at: At, join: Join) -> None:
        self._found.put(at, str(join) if join.function is None else join.rule)
        if join.function is not None:
            self.value(at.step("function"), join.function)

    def _schema(self, at: At, schema: Schema) -> None:
        self.schema(at, schema.json_schema)
        self._found.put(at.step("name"), schema.name)
        if schema.model is not None:
            self.value(at.step("class"), schema.model)

    def schema(self, at: At, schema: Mapping[str, object]) -> None:
        """A schema, and the order of the fields, in which a model writes them."""
        self._found.put(at, self._found.read(at, schema, ""))
        order = list(_properties(schema, ""))
        if len(order) > 1:
            self._found.put(at.step("order"), cast("list[JSON]", order))


def _with_options(value: object) -> object | None:
    """What has options of its own that may stand beside those of what it belongs to."""
    if isinstance(value, Mapping):
        try:
            return Parameters().updated(cast("Mapping[str, object]", value))
        except DefinitionError:  # who made it by hand has them refused when it asks
            return None
    return value if is_known(type(value)) else None


def _are_labelled(values: Sequence[object]) -> bool:
    """Whether the members are pairs of a label and something."""
    pairs = [cast("tuple[object, ...]", each) for each in values if isinstance(each, tuple)]
    return bool(pairs) and len(pairs) == len(values) and all(len(pair) == 2 and type(pair[0]) is str for pair in pairs)


def _name(thing: object) -> str:
    name = getattr(thing, "name", None)
    return name if isinstance(name, str) else name_of(thing)


def _is_called(thing: object) -> bool:
    """Whether the name of `thing` is one of its options, which stands in the key alone."""
    return any(option.effect is None for option in options_of(type(thing)).values())


def _parts(stage: Stage) -> Iterator[Stage]:
    if not isinstance(stage, Chain):
        yield stage
        return
    for part in stage.stages:
        yield from _parts(part)


def _properties(schema: Mapping[str, object], prefix: str) -> Iterator[str]:
    """The names of all fields of a JSON Schema, in order."""
    for key in ("properties", "$defs"):
        inner = schema.get(key)
        for name, each in cast("Mapping[str, object]", inner).items() if isinstance(inner, Mapping) else ():
            if key == "properties":
                yield prefix + name
            if isinstance(each, Mapping):
                yield from _properties(cast("Mapping[str, object]", each), f"{prefix}{name}.")
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield from _properties(cast("Mapping[str, object]", items), f"{prefix}[].")
