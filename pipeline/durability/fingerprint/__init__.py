"""What a pipeline was, as plain data, so that a resume can say what has changed before it calls anybody.

Two flat mappings from keys for people (`stages.plan.prompt`, `stages.plan.model.name`, `pipeline.max_in_flight`) to
JSON: what decides the results, and what only decides how they are come by (`effects` has the word for each option).
Both are the same in every process and on every machine, for a pipeline file and for the same pipeline in code. Keys of
secrets stand in it by the name of their variable, and values of headers as hashes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

from pipeline.core.pipeline import Pipeline
from pipeline.durability.fingerprint.found import Found
from pipeline.durability.fingerprint.values import JSON
from pipeline.durability.fingerprint.walk import Walk

FORM: Final = 1  #: of what is written


@dataclass(frozen=True)
class Fingerprint:
    """What a pipeline is, by key."""

    result: Mapping[str, JSON] = field(hash=False)  #: what decides the results
    operational: Mapping[str, JSON] = field(hash=False)  #: what may be another one in the next run
    defaults: frozenset[str] = frozenset()  #: the keys whose options are what they are when they are not given
    opaque: tuple[str, ...] = ()  #: what could not be looked into, so that a change of it is not noticed: sentences

    def as_json(self) -> dict[str, JSON]:
        """All of it as JSON; `of_json` reads it."""
        return {
            "form": FORM,
            "result": dict(self.result),
            "operational": dict(self.operational),
            "defaults": cast("list[JSON]", sorted(self.defaults)),
            "opaque": cast("list[JSON]", [*self.opaque]),
        }

    @classmethod
    def of_json(cls, value: JSON) -> Fingerprint:
        """Read what `as_json` gave. Raises `ValueError` for anything else."""
        if not isinstance(value, dict) or value.get("form") != FORM:
            form = value.get("form") if isinstance(value, dict) else value
            raise ValueError(f"this is no fingerprint that this version can read: form {form!r:.60}, expected {FORM}")
        result, operational, defaults, opaque = (
            value.get(part) for part in ("result", "operational", "defaults", "opaque")
        )
        mappings = isinstance(result, dict) and isinstance(operational, dict)
        if not mappings or not _are_texts(defaults) or not _are_texts(opaque):
            raise ValueError("this is no fingerprint: it lacks a part, or one has another form")
        return cls(
            MappingProxyType(cast("dict[str, JSON]", result)),
            MappingProxyType(cast("dict[str, JSON]", operational)),
            frozenset(cast("list[str]", defaults)),
            tuple(cast("list[str]", opaque)),
        )


def fingerprint(pipeline: Pipeline) -> Fingerprint:
    """What `pipeline` is, by key. Reads the source files of functions in it, if there are any; calls nothing."""
    found = Found()
    Walk(found).pipeline(pipeline)
    return Fingerprint(
        MappingProxyType(found.options["result"]),
        MappingProxyType(found.options["operational"]),
        frozenset(found.defaults),
        tuple(dict.fromkeys(found.opaque)),
    )


def _are_texts(value: JSON) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
