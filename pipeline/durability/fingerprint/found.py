"""What a walk through the definitions of a pipeline has found, and where each of it stands."""

from __future__ import annotations

from typing import Final, NamedTuple

from pipeline.durability.fingerprint.code import name_of
from pipeline.durability.fingerprint.effects import Effect
from pipeline.durability.fingerprint.keys import joined, place
from pipeline.durability.fingerprint.values import JSON, Reader, bounded

NO_VERSION: Final = "a change of it is not noticed; give it a `version`"


class At(NamedTuple):
    """Where in a fingerprint something stands."""

    key: str
    effect: Effect = "result"
    default: bool = False  #: it is what it is when it is not given

    def step(self, name: str, effect: Effect = "result", *, default: bool = False) -> At:
        """One step further in; what is in something operational is operational too."""
        inner: Effect = "operational" if self.effect == "operational" else effect
        return At(joined(self.key, name), inner, self.default or default)


class Found:
    """What can change: options by what they decide, the keys of those that are as they are by default, and what could
    not be looked into."""

    def __init__(self) -> None:
        self.options: dict[Effect, dict[str, JSON]] = {"result": {}, "operational": {}}
        self.defaults: set[str] = set()
        self.opaque: list[str] = []

    def read(self, at: At, value: object, name: str = "") -> JSON:
        """Plain data as JSON; `name` is what it is called, if that may tell that it is a secret."""

        def unknown(thing: object) -> JSON:
            what = name_of(thing if callable(thing) and hasattr(thing, "__qualname__") else type(thing))
            self.miss(at, f"a {what} in it cannot be looked into")
            return {"kind": what}

        return Reader(unknown).read(value, name)

    def put(self, at: At, value: JSON) -> None:
        """Write down what stands at a place."""
        self.options[at.effect][at.key] = bounded(value)
        if at.default:
            self.defaults.add(at.key)

    def miss(self, at: At, what: str) -> None:
        """Write down that something at a place could not be looked into."""
        self.opaque.append(f"{place(at.key)}: {what}; {NO_VERSION}")
