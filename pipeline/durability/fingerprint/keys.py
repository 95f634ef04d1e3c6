"""The keys of a fingerprint: `stages.plan.model.name`, `pipeline.max_in_flight`."""

from __future__ import annotations

import json
import re
from typing import Final, cast

_STAGE: Final = re.compile(r'stages\.("(?:[^"\\]|\\.)*"|[^."]+)(?:\.|$)')
_PLAIN: Final = re.compile(r'[^."]+')


def joined(key: str, name: str) -> str:
    """`key` with one step more. A name that would look like several steps stands in quotes."""
    step = name if _PLAIN.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return f"{key}.{step}" if key else step


def split(key: str) -> tuple[str | None, str]:
    """The stage that a key is about, None if it is about the whole pipeline, and the option."""
    found = _STAGE.match(key)
    if found is None:
        return None, key.removeprefix("pipeline.")
    name = found[1]
    return cast(str, json.loads(name)) if name.startswith('"') else name, key[found.end() :]


def place(key: str) -> str:
    """A key for people: `stage 'plan', model.name`."""
    stage, option = split(key)
    owner = "pipeline" if stage is None else f"stage {stage!r}"
    return f"{owner}, {option}" if option else owner
