"""What a run was given, as JSON in its journal, so that a resume can build the same pipeline over the same input.

Keys of providers are not in it: a pipeline names their variables only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from typing import Final, cast

from pipeline.cli.job import Document, Flags
from pipeline.core.budget import Budget
from pipeline.core.codec import BadJson, decode, encode
from pipeline.core.errors import JournalError

FORM: Final = 1
STDIN: Final = "-"

#: what a resume may say anew: how a run goes about it, and nothing that decides what comes of it
OPERATIONAL: Final = frozenset(
    {
        *("concurrency", "rpm", "tpm", "budget", "grace", "progress", "item_timeout", "max_failures", "max_in_flight"),
        *("watchdog", "stall_timeout", "deadline", "backend"),
    }
)


@dataclass(frozen=True, slots=True)
class Given:
    """What a run was given."""

    flags: Flags
    text: str  #: of the pipeline
    title: str  #: what its messages call it; its extension tells the form of the text
    path: str | None  #: of the pipeline file; None if there is none
    inputs: tuple[str, ...]  #: absolute, or `-`
    output: str  #: absolute, or `-`
    directory: str  #: in which it was begun
    line: tuple[str, ...]  #: the command line

    def encode(self) -> str:
        """As JSON."""
        flags = {**asdict(self.flags), "budget": self.flags.budget and asdict(self.flags.budget)}
        plain = {key: "none" if value == inf else value for key, value in flags.items()}
        return encode(
            {"form": FORM, **{each.name: getattr(self, each.name) for each in fields(self)}, "flags": plain}
        ).decode()

    @classmethod
    def decode(cls, text: str | None) -> Given:
        """Read what `encode` gave. Raises `JournalError`."""
        try:
            said = cast("dict[str, object]", decode((text or "").encode()))
            if said.pop("form") != FORM:
                raise ValueError
            flags = _flags(cast("dict[str, object]", said.pop("flags")))
            lists = {key: tuple(cast("list[str]", said.pop(key))) for key in ("inputs", "line")}
            return cls(flags=flags, **lists, **said)  # pyright: ignore[reportArgumentType] - refused if it is anything else
        except (BadJson, ValueError, TypeError, KeyError, AttributeError):
            raise JournalError(
                "the journal does not say what its run was given, as those of other programs; go on with the program "
                "that made it, or with the same command: penstock run … --run-dir DIR --resume"
            ) from None

    @property
    def piped(self) -> bool:
        """Whether any of its input came from a pipe."""
        return STDIN in self.inputs

    def changed(self, operational: Mapping[str, object]) -> Given:
        """The same with other operational flags, as far as they are not None."""
        asked = {name: value for name, value in operational.items() if value is not None}
        assert asked.keys() <= OPERATIONAL
        return replace(self, flags=replace(self.flags, **asked))  # pyright: ignore[reportArgumentType]


def given_of(flags: Flags, document: Document, inputs: Sequence[str]) -> Given:
    """What the command was given, as it stands."""
    return Given(
        flags,
        document.as_text,
        document.title,
        None if document.path is None else absolute(document.path),
        tuple(absolute(path) for path in inputs),
        absolute(flags.output),
        os.getcwd(),
        tuple(sys.argv[1:]),
    )


def absolute(path: str) -> str:
    return path if path == STDIN else os.path.abspath(path)


def _flags(said: dict[str, object]) -> Flags:
    for key in ("words", "overrides", "variables", "prompts", "allow_import"):
        said[key] = tuple(cast("Sequence[str]", said[key]))
    for key in ("item_timeout", "watchdog", "stall_timeout", "grace", "deadline"):
        said[key] = inf if said.get(key) == "none" else said.get(key)
    budget = cast("dict[str, float] | None", said["budget"])
    said["budget"] = None if budget is None else Budget(**budget)  # pyright: ignore[reportArgumentType]
    reading = dict(cast("Mapping[str, object]", said["reading"]))
    if "shard" in reading:
        reading["shard"] = tuple(cast("Sequence[int]", reading["shard"]))
    said["reading"] = reading
    return Flags(**said)  # pyright: ignore[reportArgumentType]
