"""Turns the flags of a quick run into the pipeline file that they stand for.

    -m sim/echo -p draft='Write on {{ prompt }}' -p judge='Score 1-5: {{ draft }}' -s 'Be brief.'

The text is shown by `--print-config` and read like any other file, so both give the same records.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipeline.config.document import write_yaml

_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_COLUMN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\s+(\S+))?")
_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "text": "string"}


def ad_hoc(model: str, prompts: Sequence[str] = (), *, system: str | None = None, schema: object = None) -> str:
    """Return the pipeline as YAML: one agent a prompt, each asking `model`, `system` for all of them.

    A prompt is `NAME=template`; one without a name is called `answer`. Without prompts, one agent sends the record's
    own prompt. `schema` is plain data, the output of the last agent. Raises `ValueError` when a name comes twice.
    """
    stages: list[dict[str, object]] = []
    for text in prompts or ("",):
        found = _NAMED.fullmatch(text)
        name, template = (found[1], found[2]) if found else ("answer", text)
        if any(stage["agent"] == name for stage in stages):
            raise ValueError(f"two prompts are called {name!r}: give each its name, -p NAME='…'")
        stage: dict[str, object] = {"agent": name}
        if system is not None:
            stage["system"] = system
        if template:
            stage["prompt"] = template
        stages.append(stage)
    if schema is not None:
        stages[-1]["output"] = schema
    return write_yaml({"version": 1, "models": {"default": {"use": model}}, "stages": stages})


def short_schema(text: str) -> dict[str, str]:
    """Read `name, age int, tags` as the fields of an object, text where no type is given. Raises `ValueError`."""
    fields: dict[str, str] = {}
    for column in text.split(","):
        found = _COLUMN.fullmatch(column.strip())
        if found is None or found[1] in fields:
            raise ValueError(f"{column.strip()!r} is not a field of a schema: write 'name, age int, score float'")
        kind = found[2] or "string"
        fields[found[1]] = _TYPES.get(kind, kind)
    return fields
