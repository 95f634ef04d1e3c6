"""When a group is done: pure arithmetic over how many of its members ended, and how.

The rules are those of DESIGN 4.4. Nothing here waits; a group asks after each change of its tally.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, TypeAlias, cast

from pipeline.core.ballot import Key, Majority, key_problems
from pipeline.core.decisions import function_problems, read_decision
from pipeline.core.errors import ItemError, Problem, is_bug
from pipeline.core.members import VERDICTS, JoinFunction, Members, Verdict
from pipeline.core.names import suggestion
from pipeline.core.time_limit import is_duration

Rule: TypeAlias = Literal["all", "first", "quorum", "custom"]
OnTimeout: TypeAlias = Literal["fail", "partial"]


@dataclass(frozen=True, slots=True)
class Join:
    """Which members a group waits for.

    `all`: every one, the first failure ends it. `first(k)`: the k-th ok ends it, the rest is revoked. `quorum(k)`:
    every one or the timeout, at least k of them ok. `custom`: `function` says so, a pure function of a `Members`; it is
    asked whenever a member has ended, and once more when the time of the group is up.
    """

    rule: Rule = "all"
    k: int = 0
    function: JoinFunction | None = None
    wrong: Problem | None = field(default=None, repr=False)  #: why this is no join; see `read`

    def __post_init__(self) -> None:
        if self.wrong is not None:
            return
        if (self.rule == "custom") != (self.function is not None):
            raise ValueError(f"join 'custom' has a function and no other join has one, got {self.rule!r}")
        if self.function is not None:
            _check_function(self.function)
            return
        if self.rule == "all" and self.k:
            raise ValueError(f"join 'all' takes no number, got {self.k}")
        if self.rule != "all" and (type(self.k) is not int or self.k < 1):
            raise ValueError(f"join {self.rule!r} needs a number of at least 1, got {self.k!r}")

    def __str__(self) -> str:
        if self.function is None:
            return "all" if self.rule == "all" else f"{self.rule}({self.k})"
        name = getattr(self.function, "__name__", None)
        return str(self.function) if name is None else f"custom({name})"

    @property
    def leaves_members(self) -> bool:
        """Whether a group may end well while members are still open; those are revoked."""
        return self.rule in ("first", "custom")

    def watched(self, watch: Callable[[object], object]) -> Join:
        """This join with its function as `watch` gives it."""
        return self if self.function is None else replace(self, function=cast(JoinFunction, watch(self.function)))

    @classmethod
    def of(cls, join: JoinLike) -> Join:
        """Read `"all"`, `"any"`, `"majority"` and a function; a `Join` is itself."""
        if isinstance(join, Join):
            return join
        if callable(join):
            return cls("custom", 0, join)
        if join == "all":
            return cls()
        if join == "any":
            return cls("first", 1)
        if join == "majority":
            return majority()
        right = "'all', 'any', 'majority', first(k), quorum(k) or a function"
        raise ValueError(f"join must be {right}, got {join!r}")

    @classmethod
    def read(cls, stage: str, join: JoinLike) -> Join:
        """Read the join of a composite. What is none is kept, so that it is told with all else that is wrong with the
        stage: `join_problems` does."""
        try:
            return cls.of(join)
        except ValueError as error:
            near = suggestion(join, ("all", "any", "majority")) if isinstance(join, str) else None
            return cls(wrong=Problem(stage, "join", str(error).removeprefix("join "), near))


#: what is taken for a join
JoinLike: TypeAlias = Join | str | JoinFunction


def _check_function(function: JoinFunction) -> None:
    if not callable(function):
        raise ValueError(f"a join is decided by a function, got {function!r}")
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        name = getattr(function, "__name__", type(function).__name__)
        raise ValueError(f"a join is decided at once, by a plain function; {name!r} is async")


def first(k: int) -> Join:
    """The first `k` members that succeed are enough; the others are cancelled."""
    return Join("first", k)


def quorum(k: int) -> Join:
    """All members are waited for, until the timeout; at least `k` have to succeed."""
    return Join("quorum", k)


def majority(key: Key | str | None = None) -> Join:
    """One answer given by more than half of all members is enough; the others are cancelled as soon as there is one,
    and the group fails as soon as there can be none.

    `key` says what is compared: a function of the answer, or an expression such as `"{{ answer.label }}"`. Without one
    texts agree that differ in capitals or in the space around them only, and other values that are the same JSON.
    """
    return Join("custom", 0, Majority(read_decision(key)))


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
        case "custom":
            raise TypeError("a custom join is asked, not counted")


def ask(join: Join, composite: str, members: Members) -> Verdict | None:
    """What the function of a custom join says of the members of a group, which may be that it is too early to say.

    Raises `ItemError` when the function raises, returns what is no verdict, or leaves a group undecided in which
    nothing is open. An `ItemError` of its own is how it gives a reason with its verdict.
    """
    if join.function is None:
        raise TypeError(f"join {join} has no function")
    where = f"join {join} of {composite!r}"
    try:
        verdict: object = join.function(members)
    except Exception as error:
        if isinstance(error, ItemError) or is_bug(error):
            raise
        raise ItemError(f"{where} raised {type(error).__name__}: {error}", type="JoinError") from error
    for known in VERDICTS:
        if isinstance(verdict, str) and verdict == known:
            return known
    if verdict is not None:
        text = f"{where} returned {verdict!r:.60}; it has to return 'ok', 'partial', 'failed', or None for not yet"
        raise ItemError(text, type="JoinError")
    if members.done:
        text = f"{where}: the join function did not decide, though all {len(members.slots)} members have ended"
        raise ItemError(text, type="JoinError")
    return None


def decide_late(join: Join, tally: Tally, on_timeout: OnTimeout | None) -> Verdict:
    """Say how a group ends whose time is up. Unless told otherwise only a quorum makes do with a part."""
    policy = on_timeout or ("partial" if join.rule == "quorum" else "fail")
    needed = join.k if join.rule == "quorum" else 1
    return "partial" if policy == "partial" and tally.ok >= needed else "failed"


def join_problems(
    stage: str, join: Join, most: int, timeout: float | None, on_timeout: OnTimeout | None
) -> Iterator[Problem]:
    """What is wrong with the join of a composite that has `most` members."""
    if join.wrong is not None:
        yield join.wrong
    if isinstance(join.function, Majority):
        yield from key_problems(stage, "join", join.function.key)
    elif join.function is not None:
        yield from function_problems(stage, "join", join.function, given="the members so far")
    if join.k > most:
        yield Problem(stage, "join", f"{join} cannot be reached with {most} members", f"at most {most}")
    if timeout is not None and not is_duration(timeout):
        yield Problem(stage, "timeout", f"must be a number of seconds above 0, got {timeout!r}")
    if on_timeout not in (None, "fail", "partial"):
        yield Problem(stage, "on_timeout", f"must be fail or partial, got {on_timeout!r}")
    if on_timeout is not None and timeout is None:
        yield Problem(stage, "on_timeout", "has no effect without a timeout", "add timeout")
