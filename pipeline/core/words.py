"""A word is how a kind of stage appears in a pipeline file: its options, and the function that builds it from them.

Stage kinds register theirs as entry points in the group `penstock.stages`, so that the configuration reads
`- agent: plan` without knowing what an agent is:

    AGENT = Word("agent", {"prompt": Field("template"), "model": Field("model", required=True)}, build=from_file)

`build` is called as `build(name, **values)` with the options that the file gives and the defaults declared here, each
as the Python value of its kind (see `FieldKind`). It raises `ValueError` or `DefinitionError` for what only it can
judge; either is shown with the place in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as _field
from enum import Enum
from typing import Final, Literal, TypeAlias

#: What an option holds in the file, and what `build` receives for it.
FieldKind: TypeAlias = Literal[
    "text",  #: text -> str
    "texts",  #: a list of texts, or one text -> tuple[str, ...]
    "template",  #: text with {{ }} -> Template
    "expression",  #: exactly one {{ }} -> Expression
    "decision",  #: an expression, or {call: "module:attr"} -> Expression | callable
    "by",  #: an expression, a stage as a mapping, or {call: "module:attr"} -> Expression | stage | callable
    "call",  #: "module:attr" -> the callable, imported only where that is allowed
    "calls",  #: a list of "module:attr", or one -> tuple of callables, imported only where that is allowed
    "duration",  #: 30s, or none -> float seconds, or None
    "count",  #: 16, 25.6k -> int, not negative
    "number",  #: -> int | float
    "share",  #: 5% -> 0.05
    "count_or_share",  #: -> int, or float for a share
    "rate",  #: 500/min, or the number a minute -> float a minute
    "money",  #: 5usd -> float US dollars
    "budget",  #: 5usd, 2Mtok, 10kreq, or several with commas -> Budget
    "flag",  #: true, false -> bool
    "choice",  #: one of `choices` -> str
    "model",  #: the name of a model, or provider/model -> its definition
    "models",  #: a list of those -> tuple of definitions
    "schema",  #: short form or JSON Schema -> plain data
    "join",  #: all | any | majority | {majority: decision} | {first: k} | {quorum: k} | {call: "module:attr"} -> Join
    "reducers",  #: output to one of `choices`, or to {call: "module:attr"} -> dict of str, or of the callable
    "body",  #: a list of stages -> one composed stage
    "bodies",  #: a mapping from label to list of stages -> dict[str, stage], in the order of the file
    "mapping",  #: any mapping -> dict[str, object], plain data
    "any",  #: any value -> plain data
]


class _Absent(Enum):
    ABSENT = "absent"


#: The default of a field without one: `build` is not given the option, and its own default holds.
ABSENT: Final = _Absent.ABSENT


@dataclass(frozen=True, slots=True)
class Field:
    """One option of a word. `choices` belong to "choice" and "reducers"; `secret` values may not stand in a file.

    A required "model" falls back to the only model of the file, or the one called `default`.
    """

    kind: FieldKind
    required: bool = False
    default: object = ABSENT
    choices: tuple[str, ...] = ()
    help: str = ""
    secret: bool = False  #: refused in a file, with the advice to name an environment variable instead
    sees: tuple[str, ...] = ()  #: the names that an expression sees instead of those in view


@dataclass(frozen=True, slots=True)
class Word:
    """A kind of stage: the key that names it in a file, its options, and its builder."""

    kind: str
    fields: Mapping[str, Field] = _field(hash=False)
    build: Callable[..., object]
    help: str = ""
    outputs: tuple[str, ...] = ()  #: what it produces beside its output: `votes` stands for `<name>_votes`
