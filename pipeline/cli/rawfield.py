"""Refuses a `--raw-field` that no record can have: what a pipeline puts out is known before it runs."""

from __future__ import annotations

from pipeline.cli.exits import UsageError
from pipeline.core.names import join_names, suggestion
from pipeline.core.stage import Stage
from pipeline.core.topology import walk


def check_raw_field(field: str | None, stage: Stage) -> None:
    """Raise `UsageError` if `field` is neither a field of the last output nor the name of any output."""
    produced = list(stage.produces().values())
    last = produced[-1] if produced else None
    if field is None or last is None:  # None: what the output holds is only known when it is there
        return
    inside: set[str] = set(last)
    known = sorted(inside.union(*(each.produces() for each in walk(stage))))
    if field not in known:
        hint = suggestion(field, known) or f"known here: {join_names(known)}"
        raise UsageError(f"--raw-field {field!r} is neither a field of the output nor the name of a stage; {hint}")
