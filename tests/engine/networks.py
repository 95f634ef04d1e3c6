"""Networks of stages as descriptions, which hypothesis can draw and print.

A network is a tuple of nodes. Payloads are digested to a number before every use, so any node can follow any other.
What a node does is a function here, shared by the stages that `tests.engine.building` makes of it and by the oracle of
`tests.engine.oracle`, which computes what comes out from the description alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.core.joins import Join

TICK = 1.0
FAILED_AT = 7

Net = tuple[Any, ...]


def digest(value: object) -> int:
    """A number for any payload."""
    if isinstance(value, int):
        return value
    members: Sequence[object] = ()
    if isinstance(value, Mapping):
        members = list(value.values())
    elif isinstance(value, list | tuple):
        members = value
    return sum((place + 1) * digest(member) for place, member in enumerate(members)) % 997


# -- nodes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A map. `kind` says how it waits: not at all, in an async function, in one that leaves late when it is cancelled,
    in one that is a call and needs a resource, with its slot given back, within a timeout, or in a thread."""

    kind: str
    pace: int
    fail_at: int | None
    concurrency: int
    skip_failures: bool


@dataclass(frozen=True)
class Sieve:
    """A filter that drops what leaves the rest `drop_at`."""

    waits: bool
    drop_at: int


@dataclass(frozen=True)
class Spy:
    """A tap that takes its time, and raises at what leaves the rest 0."""

    pace: int
    on_full: Any


@dataclass(frozen=True)
class Par:
    branches: tuple[Net, ...]
    join: Join | None  #: None: one of its own, see `judged`
    timeout: float | None
    on_timeout: Any
    skip_failures: bool = False


@dataclass(frozen=True)
class Poll:
    """A vote: of several branches, or of one that is asked `samples` times."""

    branches: tuple[Net, ...]
    samples: int | None
    needed: Any
    first_of_tied: bool
    timeout: float | None


@dataclass(frozen=True)
class Choice:
    cases: tuple[Net, ...]
    default: Net | None
    waits: bool


@dataclass(frozen=True)
class Fan:
    each: Net
    gather: Net | None
    join: Join
    modulus: int  #: children an item has, at most, plus one
    slow_split: bool
    max_children: int
    max_open: int | None
    truncate: bool
    timeout: float | None


@dataclass(frozen=True)
class Again:
    """A loop, until the rest by `modulus` is 0."""

    body: Net
    modulus: int
    max_rounds: int
    must: bool  #: rounds that are used up fail the item
    waits: bool
    skip_failures: bool = False


@dataclass(frozen=True)
class Lines:
    """A partition by the rest by `keys`; a rest of `bad` is no key."""

    body: Net
    keys: int
    waits: bool
    bad: int | None


@dataclass(frozen=True)
class Bracket:
    """A batch whose body works on each member by itself: a scatter over `each`, or one visit for all of them. With
    `breaks_at` that visit fails, or gives too few results, by what all of them come to."""

    each: Net | None
    size: int
    within: float | None
    keys: int | None
    weighed: bool
    breaks_at: int | None


@dataclass(frozen=True)
class Collapsed:
    """A batch without a body."""

    size: int
    within: float | None
    keys: int | None
    weighed: bool


@dataclass(frozen=True)
class Expand:
    """A flat_map. What leaves the rest `bad` fails after its first children."""

    modulus: int
    slow: bool
    max_children: int
    bad: int | None


@dataclass(frozen=True)
class Fold:
    """A map_reduce; a total with the rest `bad` cannot be added to."""

    each: Net
    modulus: int
    slow: bool
    max_open: int
    max_children: int
    bad: int | None


# -- what they do ---------------------------------------------------------------------------------------------------

VISIT_TIMEOUT = 1.5 * TICK


def pause(node: Work, value: object) -> float:
    """Seconds that a visit waits."""
    return digest(value) * node.pace % 4 * TICK


def worked(node: Work, value: object) -> int:
    number = digest(value)
    if node.fail_at is not None and number % FAILED_AT == node.fail_at:
        raise ValueError(f"{number} is refused")
    return (number * 3 + node.pace + 1) % 101


def passes(node: Sieve, value: object) -> bool:
    return digest(value) % 5 != node.drop_at


def judged(values: Mapping[str, object], failed: int) -> str:
    """What a join of its own says when every member has ended."""
    if not values or digest(values) % 5 == 0:
        return "failed"
    return "partial" if failed or digest(values) % 5 == 1 else "ok"


def answer(value: object) -> int:
    """What votes are compared by."""
    return digest(value) % 3


def label_of(node: Choice, value: object) -> str:
    return f"c{digest(value) % (len(node.cases) + 1)}"


def parts_of(node: Fan | Expand | Fold, value: object) -> list[int]:
    number = digest(value)
    return [number + place for place in range(number % node.modulus)]


def enough(node: Again, value: object) -> bool:
    return digest(value) % node.modulus == 0


def key_of(keys: int, bad: int | None, value: object) -> object:
    key = digest(value) % keys
    return {} if key == bad else key


def weight_of(value: object) -> int:
    return 1 + digest(value) % 3


def together(node: Bracket, values: Sequence[object]) -> list[int]:
    if node.breaks_at is not None and digest(values) % 5 == node.breaks_at:
        if digest(values) % 2:
            raise ValueError("these do not go together")
        values = values[1:]
    return [(digest(value) * 5 + 1) % 101 for value in values]


def expanded(node: Expand, value: object) -> Iterator[int]:
    yield from parts_of(node, value)
    if digest(value) % FAILED_AT == node.bad:
        raise ValueError("no more of these")


def added(node: Fold, total: int, value: object) -> int:
    if node.bad is not None and total % FAILED_AT == node.bad:
        raise ValueError(f"{total} cannot be added to")
    return (total * 7 + digest(value)) % 997


# -- asking about them ----------------------------------------------------------------------------------------------


def bodies_of(node: object) -> tuple[Net, ...]:
    match node:
        case Par() | Poll():
            return node.branches
        case Choice():
            return (*node.cases, *((node.default,) if node.default is not None else ()))
        case Fan():
            return (node.each, *((node.gather,) if node.gather is not None else ()))
        case Again() | Lines():
            return (node.body,)
        case Bracket():
            return () if node.each is None else (node.each,)
        case Fold():
            return (node.each,)
        case _:
            return ()


def nodes(net: Net) -> Iterator[Any]:
    """Every node of a network, each before its bodies."""
    for node in net:
        yield node
        for body in bodies_of(node):
            yield from nodes(body)


def size(net: Net) -> int:
    return sum(1 for _ in nodes(net))


def is_calm(net: Net) -> bool:
    """Whether nothing can fail, be skipped or be missing, whatever goes in."""
    return all(_is_calm(node) for node in nodes(net))


def _is_calm(node: object) -> bool:
    match node:
        case Work():
            return node.fail_at is None and node.kind != "timed"
        case Par():
            return node.join == Join() and node.timeout is None
        case Choice():
            return node.default is not None
        case Again():
            return not node.must
        case Lines():
            return node.bad is None
        case Bracket():
            return node.breaks_at is None
        case _:
            return isinstance(node, Spy)


def timing_matters(net: Net) -> bool:
    """Whether what an item ends as can depend on who comes first, or on who is in a batch with it."""
    for node in nodes(net):
        join = getattr(node, "join", None)
        if getattr(node, "timeout", None) is not None or (join is not None and join.leaves_members):
            return True
        if isinstance(node, Bracket) and not (_is_calm(node) and (node.each is None or is_calm(node.each))):
            return True
    return False


def has(net: Net, *kinds: type) -> bool:
    return any(isinstance(node, kinds) for node in nodes(net))


def waits_between_children(net: Net) -> bool:
    """Whether a drain may end an iteration over children before its last one."""
    return any(getattr(node, "slow_split", False) or getattr(node, "slow", False) for node in nodes(net))
