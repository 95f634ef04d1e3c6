"""What a root leaves behind: one `Record` in, one `Record` out.

`Input` is what a source yields; `Record` is the outcome of a root. Both are values, and a standard record holds nothing
that differs between two runs with the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, cast

from pipeline.core.errors import Failure, ItemError
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage

Status: TypeAlias = Literal["ok", "partial", "failed", "skipped", "cancelled"]

_NO_FIELDS: Mapping[str, object] = MappingProxyType({})

STATUSES: tuple[Status, ...] = ("ok", "partial", "failed", "skipped", "cancelled")


class Input(NamedTuple):
    """One record of the input.

    `value` is what the first stage receives: the prompt of a text line, the fields of a structured record, or any
    object given by code. `fields` are what templates see as `input`. `defect` marks a record that could not be read:
    it is admitted, and fails without visiting a stage, so that it has an outcome like every other one.
    """

    value: object
    id: str | None = None  #: None: the run numbers it by its position
    prompt: str | None = None
    fields: Mapping[str, object] = _NO_FIELDS
    messages: tuple[Message, ...] = ()
    defect: ItemError | None = None
    position: int | None = None  #: in the whole input, from 0, when only a share of it is run; None: the run counts


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of one root."""

    id: str
    index: int  #: position in the input, from 0
    status: Status
    output: object  #: the last stage's output; None unless ok or partial
    outputs: Mapping[str, object]  #: by stage name, what was finished
    error: Failure | None
    usage: Usage  #: of all that became part of it; what no join waited for is in the totals of the run only
    cost: Cost | None  #: likewise; None when nothing was called; its `usd` is None when a price is unknown
    input: object  #: the record as it came in
    missing: tuple[str, ...] = ()  #: what a partial output lacks, as composite.branch
    parent: str | None = None  #: the root's id, when one root yields several records
    inputs: tuple[str, ...] = ()  #: the ids of the roots, when several of them yield one record

    def standard(self) -> dict[str, object]:
        """The record as it is written: fixed key order, nothing volatile."""
        record: dict[str, object] = {
            "id": self.id,
            "index": self.index,
            "status": self.status,
            "output": self.output,
            "outputs": dict(self.outputs),
            "error": self.error.as_json() if self.error else None,
            "usage": usage_json(self.usage),
            "cost": cost_json(self.cost) if self.cost else None,
            "input": self.input,
        }
        if self.missing:
            record["missing"] = list(self.missing)
        if self.parent is not None:
            record["parent"] = self.parent
        if self.inputs:
            record["inputs"] = list(self.inputs)
        return record


def usage_json(usage: Usage) -> dict[str, object]:
    """The `usage` object of a record; an estimate says that it is one."""
    counts: dict[str, object] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "requests": usage.requests,
    }
    if usage.estimated:
        counts["estimated"] = True
    return counts


def usage_of(said: Mapping[str, object]) -> Usage:
    """What `usage_json` wrote."""
    return Usage(**cast("Mapping[str, int]", said))  # pyright: ignore[reportArgumentType]


def cost_json(cost: Cost) -> dict[str, object]:
    """The `cost` object of a record."""
    return {"usd": cost.usd, "source": cost.source}


def cost_of(said: Mapping[str, object]) -> Cost:
    """What `cost_json` wrote."""
    return Cost(cast("float | None", said["usd"]), cast(str, said["source"]))
