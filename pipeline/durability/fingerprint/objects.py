"""Functions and objects of the user's in a fingerprint: their name, their version or source, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Protocol, cast

from pipeline.core.places import is_ours
from pipeline.durability.fingerprint.code import Sources, helpers, is_foreign, name_of, reached, version_of
from pipeline.durability.fingerprint.found import At, Found
from pipeline.durability.fingerprint.values import dumped, is_plain, is_secret


class Defines(Protocol):
    """Writes down what objects hold."""

    def options(self, at: At, thing: object) -> None: ...

    def value(self, at: At, value: object, name: str = "") -> None: ...

    def schema(self, at: At, schema: Mapping[str, object]) -> None: ...


class Objects:
    """What can change: the objects that are being looked into, and through `found` what is known of them."""

    def __init__(self, found: Found, define: Defines) -> None:
        self._found = found
        self._define = define
        self._sources = Sources()
        self._inside: set[int] = set()

    def put(self, at: At, thing: object) -> None:
        """A function, or an object of which nothing is known but its class and what a dataclass shows."""
        if id(thing) in self._inside:  # a function that calls itself
            self._found.put(at, name_of(thing))
            return
        self._inside.add(id(thing))
        try:
            self._look_into(at, thing)
        except RecursionError:
            if len(self._inside) > 1:
                raise
            self._found.miss(at, f"what {name_of(thing)} holds has no end")
        finally:
            self._inside.discard(id(thing))

    def _look_into(self, at: At, thing: object) -> None:
        schema = getattr(thing, "json_schema", None)
        match thing:
            case FunctionType():
                self._found.put(at, name_of(thing))
                self.source(at, thing)
                self._kept(at, thing)
            case MethodType():
                self._found.put(at, name_of(thing))
                self.source(at, thing.__func__)
                self._define.value(at.step("self"), thing.__self__)
            case partial():
                self._found.put(at, name_of(partial))
                parts = {"function": thing.func, "arguments": thing.args, "keywords": thing.keywords}
                for name, part in cast("dict[str, object]", parts).items():
                    self._define.value(at.step(name), part)
            case type():
                self._found.put(at, name_of(thing))
                self.source(at, thing)
            case ModuleType():
                self._found.put(at, thing.__name__)
            case _ if isinstance(schema, Mapping) and is_ours(type(thing).__module__):  # the arguments of a tool
                self._define.schema(at, cast("Mapping[str, object]", schema))
            case _ if hasattr(thing, "__qualname__"):  # built in, or wrapped by what is
                self._found.put(at, name_of(thing))
                if (inner := getattr(thing, "__wrapped__", None)) is not None:
                    self._define.value(at.step("wraps"), inner)
            case _:
                self._instance(at, thing)

    def _instance(self, at: At, thing: object) -> None:
        kind = type(thing)
        self._found.put(at, name_of(kind))
        if (version := version_of(thing)) is not None:
            self._found.put(at.step("version"), version)
        else:
            self.source(at, kind)
        if is_dataclass(thing):
            self._define.options(at, thing)
        elif (model := dumped(thing)) is not None:
            self._define.value(at, model)
        elif getattr(thing, "__dict__", None) or any("__slots__" in vars(base) for base in kind.__mro__[:-1]):
            self._found.miss(at, f"what a {name_of(kind)} holds cannot be seen")

    def source(self, at: At, thing: FunctionType | type) -> None:
        """The version of code of the user's, or what its source is known by, with the constants of its module."""
        if not is_foreign(thing):
            return
        if (version := version_of(thing)) is not None:
            self._found.put(at.step("version"), version)
            return
        found = self._sources.hash_of(thing)
        if found is None:
            self._found.miss(at, f"the source of {name_of(thing)} cannot be read")
            return
        self._found.put(at.step("source"), found)
        for name, value in reached(thing).items():
            if name.isupper() and is_plain(value) and not is_secret(name):  # a key changes while all else stays
                self._define.value(at.step("constants").step(name), value, name)
        if left_out := helpers(thing):
            used = ", ".join(left_out)
            self._found.miss(at, f"{name_of(thing)} uses {used}, not looked into")

    def _kept(self, at: At, function: FunctionType) -> None:
        """What a function has beside its code: the defaults of its parameters, and the names that it closes over."""
        code, given = function.__code__, function.__defaults__ or ()
        names = code.co_varnames[: code.co_argcount]
        defaults = {
            **dict(zip(names[len(names) - len(given) :], given, strict=True)),
            **(function.__kwdefaults__ or {}),
        }
        for name, value in cast("dict[str, object]", defaults).items():
            self._define.value(at.step("defaults").step(name), value, name)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                value = cast(object, cell.cell_contents)
            except ValueError:  # it has not been bound
                continue
            if name != "__class__":
                self._define.value(at.step("closure").step(name), value, name)
