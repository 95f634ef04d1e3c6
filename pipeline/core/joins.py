"""When a group is done: pure arithmetic over how many of its members ended, and how.

The rules are those of DESIGN 4.4. Nothing here waits; a group asks after each change of its tally.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pipeline.core.errors import Problem

Rule: TypeAlias = Literal["all", "first", "quorum"]
OnTimeout: TypeAlias = Literal["fail", "partial"]
Verdict: TypeAlias = Literal["ok", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class Join:
    """Which members a group waits for.

    `all`: every one, the first failure ends it. `first(k)`: the k-th ok ends it, the rest is revoked. `quorum(k)`:
    every one or the timeout, at least k of them ok.
    """

    rule: Rule = "all"
    k: int = 0

    def __post_init__(self) -> None:
        if self.rule == "all" and self.k:
            raise ValueError(f"join 'all' takes no number, got {self.k}")
        if self.rule != "all" and self.k < 1:
            raise ValueError(f"join {self.rule!r} needs a number of at least 1, got {self.k}")

    def __str__(self) -> str:
        return "all" if self.rule == "all" else f"{self.rule}({self.k})"

    @classmethod
    def of(cls, join: Join | str) -> Join:
        """Read `"all"` and `"any"`; a `Join` is itself."""
        if isinstance(join, Join):
            return join
        if join == "all":
            return cls()
        if join == "any":
            return cls("first", 1)
        raise ValueError(f"join must be 'all', 'any', first(k) or quorum(k), got {join!r}")


def first(k: int) -> Join:
    """The first `k` members that succeed are enough; the others are cancelled."""
    return Join("first", k)


def quorum(k: int) -> Join:
    """All members are waited for, until the timeout; at least `k` have to succeed."""
    return Join("quorum", k)


class Tally(NamedTuple):
    """How the members of a group stand."""

    ok: int
    failed: int
    skipped: int  #: finished without an output: neither ok nor missing
    open: int
    complete: bool  #: no member will be added


def decide(join: Join, tally: Tally) -> Verdict | None:
    """Say how the group ends by what has happened so far, or None while it may still go either way."""
    reachable = not tally.complete or tally.ok + tally.open >= join.k
    done = tally.complete and not tally.open
    match join.rule:
        case "all":
            if tally.failed:
                return "failed"
            return "ok" if done else None
        case "first":
            if tally.ok >= join.k:
                return "ok"
            return None if reachable else "failed"
        case "quorum":
            if not reachable:
                return "failed"
            if not done:
                return None
            return "partial" if tally.failed else "ok"


def decide_late(join: Join, tally: Tally, on_timeout: OnTimeout | None) -> Verdict:
    """Say how a group ends whose time is up. Unless told otherwise only a quorum makes do with a part."""
    policy = on_timeout or ("partial" if join.rule == "quorum" else "fail")
    needed = join.k if join.rule == "quorum" else 1
    return "partial" if policy == "partial" and tally.ok >= needed else "failed"


def join_problems(
    stage: str, join: Join, most: int, timeout: float | None, on_timeout: OnTimeout | None
) -> Iterator[Problem]:
    """What is wrong with the join of a composite that has `most` members."""
    if join.k > most:
        yield Problem(stage, "join", f"{join} cannot be reached with {most} members", f"at most {most}")
    if timeout is not None and not timeout > 0:
        yield Problem(stage, "timeout", f"must be above 0 seconds, got {timeout!r}")
    if on_timeout not in (None, "fail", "partial"):
        yield Problem(stage, "on_timeout", f"must be fail or partial, got {on_timeout!r}")
    if on_timeout is not None and timeout is None:
        yield Problem(stage, "on_timeout", "has no effect without a timeout", "add timeout")
