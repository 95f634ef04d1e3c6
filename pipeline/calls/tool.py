"""A tool as a model is told of it; who runs it is no business of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tool:
    """Name, what it is for, and the JSON Schema of its arguments, which is an object."""

    name: str
    description: str
    parameters: Mapping[str, object] = field(hash=False)
