"""What every reader of documents keeps to: how deep and how many, and how a reader gives up."""

from __future__ import annotations

from pipeline.config.nodes import Mark
from pipeline.config.problems import Located

DEEPEST = 50
MOST_NODES = 10_000


class Reject(Exception):
    """The text is no document that can be read further; carries the one problem."""

    def __init__(self, code: str, message: str, mark: Mark | None = None) -> None:
        super().__init__(message)
        self.problem = Located(code, message, mark or Mark())


class Limits:
    """Counts the nodes of one document while it is read."""

    def __init__(self) -> None:
        self._nodes = 0

    def enter(self, depth: int, mark: Mark) -> None:
        """Count one node at `depth`. Raises `Reject` past either limit."""
        self._nodes += 1
        if depth > DEEPEST:
            raise Reject("E107", f"nested more than {DEEPEST} deep", mark)
        if self._nodes > MOST_NODES:
            raise Reject("E107", f"more than {MOST_NODES} values", mark)
