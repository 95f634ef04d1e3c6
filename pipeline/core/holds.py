"""What a visit waits for inside a model call, in words. Satisfies `ports.Hold`; limits and quotas bring their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.core.ports import Visit


@dataclass(frozen=True, slots=True)
class Answer:
    """A call of a model, from its first attempt to its end."""

    model: str

    def __str__(self) -> str:
        return f"the answer of model {self.model}"

    def holders(self) -> Sequence[Visit]:
        return ()


@dataclass(frozen=True, slots=True)
class NextAttempt:
    """The pause after an attempt that failed."""

    def __str__(self) -> str:
        return "its next attempt"

    def holders(self) -> Sequence[Visit]:
        return ()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool that a model has called, until it returns."""

    tool: str

    def __str__(self) -> str:
        return f"tool {self.tool!r}"

    def holders(self) -> Sequence[Visit]:
        return ()
