"""One walk through the definitions of a pipeline, which writes down what stands in each option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import NamedTuple, cast

from pipeline.calls.parameters import Parameters
from pipeline.calls.schema import Schema
from pipeline.core.decisions import Misread
from pipeline.core.errors import DefinitionError
from pipeline.core.joins import Join
from pipeline.core.pipeline import Pipeline
from pipeline.core.places import is_ours
from pipeline.core.stage import Chain, Stage
from pipeline.core.templates import Expression, Template
from pipeline.durability.code import Sources, helpers, is_foreign, name_of, version_of
from pipeline.durability.effects import Effect, Option, is_aside, is_known, options_of
from pipeline.durability.keys import joined, place
from pipeline.durability.values import JSON, Reader, bounded, hidden, is_default, is_plain, is_secret, number

_NO_VERSION = "a change of it is not noticed; give it a `version`"


class At(NamedTuple):
    """Where in a fingerprint something stands."""

    key: str
    effect: Effect = "result"
    default: bool = False  #: it is what it is when it is not given

    def step(self, name: str, effect: Effect = "result", *, default: bool = False) -> At:
        """One step further in; what is in something operational is operational too."""
        inner: Effect = "operational" if self.effect == "operational" else effect
        return At(joined(self.key, name), inner, self.default or default)


class Walk:
    """What can change: what has been found, and the objects that are being looked into."""

    def __init__(self) -> None:
        self.found: dict[Effect, dict[str, JSON]] = {"result": {}, "operational": {}}
        self.defaults: set[str] = set()
        self.opaque: list[str] = []
        self._sources = Sources()
        self._inside: set[int] = set()

    def pipeline(self, pipeline: Pipeline) -> None:
        self._options(At("pipeline"), pipeline)

    # -- options ------------------------------------------------------------------------------------------------

    def _options(self, at: At, thing: object, owner: object = None, under: At | None = None) -> None:
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
            self._options(At(around.key, at.effect, at.default), inner, owner, at)
        else:
            self._value(at, value, option.called if option.users else "")

    def _hidden(self, at: At, values: Mapping[str, str]) -> None:
        """Values that are not shown. Those of secrets are left out, because they change while all else stays."""
        for name, value in values.items():
            secret = is_secret(name)
            self._put(at.step(name, "operational" if secret else "result"), "[secret]" if secret else hidden(value))

    def _value(self, at: At, value: object, name: str = "") -> None:
        """What stands in an option; `name` is what it is called, if that may tell that it is a secret."""
        match value:
            case Stage():
                self._chain(at, value)
            case Template() | Expression() | Misread():
                self._put(at, self._read(at, value.source, name))
            case Join():
                self._join(at, value)
            case Schema():
                self._schema(at, value)
            case bool():
                self._put(at, value)
            case int() | float() if type(value) in (int, float):
                self._put(at, number(value))
            case Mapping():
                for key, each in cast("Mapping[object, object]", value).items():
                    self._item(at.step(str(key)), each, name if is_secret(name) else str(key))
            case list() | tuple():
                self._several(at, cast("Sequence[object]", value), name)
            case _ if is_known(type(value)):
                self._put(at.step("kind"), name_of(type(value)))
                self._options(at, value)
            case _ if is_plain(value):
                self._put(at, self._read(at, value, name))
            case _:
                self._object(at, value)

    def _item(self, at: At, value: object, name: str) -> None:
        """A member of a mapping: numbers are kept as they were written, because a template shows them so."""
        if value is None or isinstance(value, bool | int | float | str | Mapping):
            self._put(at, self._read(at, cast(object, value), name))
        else:
            self._value(at, value, name)

    def _several(self, at: At, values: Sequence[object], name: str) -> None:
        """Members by their label, name or number, which are kept in their order; plain values as they are."""
        if _are_labelled(values):
            members = {str(label): value for label, value in cast("Sequence[tuple[object, object]]", values)}
            self._put(at, [*members])
        elif not values or all(is_plain(each) and not is_known(type(each)) for each in values):
            self._put(at, self._read(at, values, name))
            return
        else:
            names = [_name(each) for each in values]
            self._put(at, cast("list[JSON]", names))
            called = all(_is_called(each) for each in values) and len(set(names)) == len(names)
            numbers = [str(number) for number, _ in enumerate(values, start=1)]
            members = dict(zip(names if called else numbers, values, strict=True))
        for label, value in members.items():
            self._value(at.step(label), value, name)

    # -- stages -------------------------------------------------------------------------------------------------

    def _chain(self, at: At, stage: Stage) -> None:
        """The names of stages in a row, and the stages themselves."""
        parts = list(_parts(stage))
        self._put(at, [part.name for part in parts if not is_aside(type(part))])
        for part in parts:
            own = At(joined("stages", part.name), "operational" if is_aside(type(part)) else at.effect)
            self._put(own.step("kind"), name_of(type(part)))
            self._source(own.step("kind"), type(part))
            self._options(own, part)

    def _join(self, at: At, join: Join) -> None:
        self._put(at, str(join) if join.function is None else join.rule)
        if join.function is not None:
            self._value(at.step("function"), join.function)

    def _schema(self, at: At, schema: Schema) -> None:
        self._json_schema(at, schema.json_schema)
        self._put(at.step("name"), schema.name)
        if schema.model is not None:
            self._value(at.step("class"), schema.model)

    def _json_schema(self, at: At, schema: Mapping[str, object]) -> None:
        """A schema, and the order of the fields, in which a model writes them."""
        self._put(at, self._read(at, schema, ""))
        order = list(_properties(schema, ""))
        if len(order) > 1:
            self._put(at.step("order"), cast("list[JSON]", order))

    # -- code and objects ---------------------------------------------------------------------------------------

    def _object(self, at: At, thing: object) -> None:
        """A function, or an object of which nothing is known but its class and what a dataclass shows."""
        if id(thing) in self._inside:  # a function that calls itself
            self._put(at, name_of(thing))
            return
        self._inside.add(id(thing))
        try:
            self._look_into(at, thing)
        finally:
            self._inside.discard(id(thing))

    def _look_into(self, at: At, thing: object) -> None:
        schema = getattr(thing, "json_schema", None)
        match thing:
            case FunctionType():
                self._put(at, name_of(thing))
                self._source(at, thing)
                self._kept(at, thing)
            case MethodType():
                self._put(at, name_of(thing))
                self._source(at, thing.__func__)
                self._value(at.step("self"), thing.__self__)
            case partial():
                self._put(at, name_of(partial))
                parts = {"function": thing.func, "arguments": thing.args, "keywords": thing.keywords}
                for name, part in cast("dict[str, object]", parts).items():
                    self._value(at.step(name), part)
            case type():
                self._put(at, name_of(thing))
                self._source(at, thing)
            case ModuleType():
                self._put(at, thing.__name__)
            case _ if isinstance(schema, Mapping) and is_ours(type(thing).__module__):  # the arguments of a tool
                self._json_schema(at, cast("Mapping[str, object]", schema))
            case _ if hasattr(thing, "__qualname__"):  # built in, or wrapped by what is
                self._put(at, name_of(thing))
                if (inner := getattr(thing, "__wrapped__", None)) is not None:
                    self._value(at.step("wraps"), inner)
            case _:
                self._instance(at, thing)

    def _instance(self, at: At, thing: object) -> None:
        kind = type(thing)
        self._put(at, name_of(kind))
        if (version := version_of(thing)) is not None:
            self._put(at.step("version"), version)
        else:
            self._source(at, kind)
        if is_dataclass(thing):
            self._options(at, thing)
        elif getattr(thing, "__dict__", None) or any("__slots__" in vars(base) for base in kind.__mro__[:-1]):
            self.opaque.append(f"{place(at.key)}: what a {name_of(kind)} holds cannot be seen; {_NO_VERSION}")

    def _source(self, at: At, thing: FunctionType | type) -> None:
        """The version of code of the user's, or what its source is known by."""
        if not is_foreign(thing):
            return
        if (version := version_of(thing)) is not None:
            self._put(at.step("version"), version)
            return
        found = self._sources.hash_of(thing)
        if found is None:
            self.opaque.append(f"{place(at.key)}: the source of {name_of(thing)} cannot be read; {_NO_VERSION}")
            return
        self._put(at.step("source"), found)
        if left_out := helpers(thing):
            used = ", ".join(left_out)
            self.opaque.append(f"{place(at.key)}: {name_of(thing)} uses {used}, not looked into; {_NO_VERSION}")

    def _kept(self, at: At, function: FunctionType) -> None:
        """What a function has beside its code: the defaults of its parameters, and the names that it closes over."""
        code, given = function.__code__, function.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount]
        defaults = {
            **dict(zip(names[len(names) - len(given) :], given, strict=True)),
            **(function.__kwdefaults__ or {}),
        }
        for name, value in cast("dict[str, object]", defaults).items():
            self._value(at.step("defaults").step(name), value, name)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cast(object, cell.cell_contents)
            except ValueError:  # it has not been bound
                continue
            if name != "__class__":
                self._value(at.step("closure").step(name), value, name)

    # -- writing down -------------------------------------------------------------------------------------------

    def _read(self, at: At, value: object, name: str) -> JSON:
        def unknown(thing: object) -> JSON:
            what = name_of(thing if callable(thing) and hasattr(thing, "__qualname__") else type(thing))
            self.opaque.append(f"{place(at.key)}: a {what} in it cannot be looked into; {_NO_VERSION}")
            return {"kind": what}

        return Reader(unknown).read(value, name)

    def _put(self, at: At, value: JSON) -> None:
        self.found[at.effect][at.key] = bounded(value)
        if at.default:
            self.defaults.add(at.key)


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
