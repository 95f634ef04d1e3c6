"""Values of options as JSON that is the same in every process and on every machine, bounded, and without secrets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import MISSING, Field, fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import blake2b
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from pipeline.calls.secrets import without_secrets
from pipeline.core.codec import canonical, encode
from pipeline.core.places import is_ours
from pipeline.durability.fingerprint.code import name_of
from pipeline.durability.fingerprint.effects import is_known

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"

LONGEST: Final = 4096  #: characters of a value that are kept; of a longer one that many, and a hash of the whole
DEEPEST: Final = 50  #: containers inside one another

_KEY: Final = re.compile(r"\b(?:sk|pk|rk)-[\w-]{16,}|\b[Bb]earer\s+[\w.~+/-]{16,}=*")
_SAID: Final = (date, time, timedelta, Decimal, PurePath, UUID, complex)
_ATOMS: Final = (str, int, float, bytes, bytearray, Enum, AbstractSet, *_SAID)


def digest(text: str | bytes) -> str:
    """A hash of `text` that tells equal ones."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return blake2b(data, digest_size=16).hexdigest()


def is_secret(name: str) -> bool:
    """Whether what is called so is likely to be a secret."""
    return not without_secrets({name: ""})


def hidden(value: str) -> JSON:
    """What tells `value` from another one and does not show it."""
    return {"hidden": digest(value)}


def is_hidden(value: JSON) -> bool:
    return isinstance(value, dict) and value.keys() == {"hidden"}


def bounded(value: JSON) -> JSON:
    """`value`, or if it is long the beginning of its text, and a hash."""
    text = value if isinstance(value, str) else encode(value).decode() if isinstance(value, list | dict) else ""
    if len(text) <= LONGEST:
        return value
    return {"begins": text[:LONGEST], "characters": len(text), "hash": digest(text)}


def number(value: float) -> JSON:
    """A number of an option, for which 2 and 2.0 are the same."""
    if not math.isfinite(value):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def default_of(field: Field[Any]) -> object:
    """What an option is if it is not given; `MISSING` if it has to be."""
    if field.default is not MISSING:
        return cast(object, field.default)
    return MISSING if field.default_factory is MISSING else cast(object, field.default_factory())


def is_default(field: Field[Any], value: object) -> bool:
    """Whether an option is what it is when it is not given."""
    default = default_of(field)
    try:
        return value is default or (type(value) is type(default) and bool(value == default))
    except Exception:  # an array of answers, or a `==` of the user's
        return False


def is_plain(value: object) -> bool:
    """Whether `value` is data by itself, not an object of which only its class knows what it is."""
    if value is None or isinstance(value, _ATOMS):
        return True
    if isinstance(value, type) or callable(value):
        return False
    if isinstance(value, list | tuple):
        return all(is_plain(each) for each in cast("list[object]", value))
    return isinstance(value, Mapping) or (is_dataclass(value) and is_ours(type(value).__module__))


def dumped(value: object) -> Mapping[str, object] | None:
    """What is in a pydantic model, which is told without importing pydantic; None if it is none or cannot be read."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        return None
    try:
        return cast("Mapping[str, object]", dump(mode="json"))
    except Exception:  # it holds what has no form in JSON
        return None


class Reader:
    """Reads plain values. `unknown` is told of objects that are none, and gives what stands for them."""

    def __init__(self, unknown: Callable[[object], JSON]) -> None:
        self._unknown = unknown

    def read(self, value: object, name: str = "", depth: int = 0) -> JSON:
        """`value` as JSON; texts that are called like a secret, or look like one, are hidden."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.read(value.value, name, depth)
        if isinstance(value, str):
            return hidden(value) if is_secret(name) else _KEY.sub(lambda found: f"[key {digest(found[0])}]", str(value))
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(value)
        if depth > DEEPEST:
            return self._unknown(value)
        return self._container(value, name, depth + 1)

    def _container(self, value: object, name: str, depth: int) -> JSON:
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {str(key): self.read(each, str(key) if not is_secret(name) else name, depth) for key, each in items}
        if isinstance(value, list | tuple):
            return [self.read(each, name, depth) for each in cast("list[object]", value)]
        if isinstance(value, AbstractSet):
            return sorted([self.read(each, name, depth) for each in cast("AbstractSet[object]", value)], key=canonical)
        if isinstance(value, bytes | bytearray):
            return hidden(bytes(value).hex())
        if isinstance(value, _SAID):
            return str(value)
        if is_dataclass(value) and not isinstance(value, type) and not callable(value) and not is_known(type(value)):
            return self._fields(value, depth)
        model = dumped(value)
        if model is not None:
            return self.read({"kind": name_of(type(value)), **model}, name, depth)
        return self._unknown(value)

    def _fields(self, value: Any, depth: int) -> JSON:
        """The fields of a dataclass that are not what they are by default; of ours its class need not be told."""
        kind = cast("type[Any]", type(value))  # pyright: ignore[reportUnnecessaryCast]
        ours = is_ours(kind.__module__)
        found: dict[str, JSON] = {} if ours else {"kind": name_of(kind)}
        for field in fields(value):
            given = cast(object, getattr(value, field.name))
            if field.init and not is_default(field, given):
                plain = number(given) if ours and isinstance(given, float) else given
                found[field.name] = self.read(plain, "" if ours else field.name, depth)
        return found
