"""A record as it was, from its standard line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pipeline.core.codec import decode
from pipeline.core.errors import Failure
from pipeline.core.record import Record, Status, cost_of, usage_of


def record_of(line: bytes) -> Record:
    """The record whose standard line it is; values that code gave are what JSON makes of them."""
    said = cast("Mapping[str, object]", decode(line))
    cost = cast("Mapping[str, object] | None", said["cost"])
    return Record(
        cast(str, said["id"]),
        cast(int, said["index"]),
        cast(Status, said["status"]),
        said["output"],
        cast("Mapping[str, object]", said["outputs"]),
        _failure(cast("Mapping[str, object] | None", said["error"])),
        usage_of(cast("Mapping[str, object]", said["usage"])),
        None if cost is None else cost_of(cost),
        said["input"],
        tuple(cast("list[str]", said.get("missing", ()))),
        cast("str | None", said.get("parent")),
        tuple(cast("list[str]", said.get("inputs", ()))),
    )


def _failure(said: Mapping[str, object] | None) -> Failure | None:
    if said is None:
        return None
    return Failure(
        cast(str, said["type"]),
        cast("str | None", said["stage"]),
        cast(str, said["message"]),
        cast(bool, said["retryable"]),
        cast("int | None", said["http_status"]),
        cast("int | None", said["attempts"]),
        cast("str | None", said["request_id"]),
    )
