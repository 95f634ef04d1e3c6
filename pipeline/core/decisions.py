"""What is wrong with a function or expression that decides something for a composite: a key, an end, a split."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.core.errors import Problem
from pipeline.core.templates import Expression
from pipeline.core.threads import is_blocking


def decision_problems(stage: str, option: str, decision: object, *, at_once: bool = False) -> Iterator[Problem]:
    """Say if `decision` is neither a function nor an expression; `at_once`: or one that would have to be awaited."""
    if isinstance(decision, Expression):
        return
    if not callable(decision):
        yield Problem(stage, option, f"must be a function or an expression, got {decision!r:.60}")
    elif at_once and not is_blocking(decision):
        yield Problem(stage, option, "is called at once, and this one is async", "make it a plain function")


def whole(value: object, otherwise: int = 1) -> int:
    """`value` if it is a whole number of at least 1, for sums over a definition that has not been checked yet."""
    return value if type(value) is int and value >= 1 else otherwise
