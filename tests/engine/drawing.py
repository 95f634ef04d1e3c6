"""Random networks. What is drawn is small, and of every kind about as often."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

from pipeline.core.joins import Join, majority
from tests.engine.networks import (
    FAILED_AT,
    Again,
    Bracket,
    Choice,
    Collapsed,
    Expand,
    Fan,
    Fold,
    Lines,
    Net,
    Par,
    Poll,
    Sieve,
    Spy,
    Work,
    answer,
)


@cache
def evenly(least: int, most: int) -> st.SearchStrategy[int]:
    """Each of them as often as the others; `integers` prefers 0."""
    return st.sampled_from(range(least, most + 1))


def weighted(*choices: tuple[int, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Each as often as its number says; `one_of` takes equal ones for one."""
    return st.sampled_from([one for times, one in choices for _ in range(times)]).flatmap(lambda one: one)


KINDS = ("plain", "plain", "async", "async", "visit", "lend", "lend", "late", "call", "timed")
#: threads are real, and slow beside virtual time
RARELY_IN_THREADS = (*KINDS * 2, "thread", *KINDS * 2)
CALM_KINDS = tuple(kind for kind in KINDS if kind != "timed")
withins = st.sampled_from([0.5, 1.5, 1.5, 3.0, None])
timeouts = st.sampled_from([None, None, None, None, 0.5, 1.5, 3.5])


@cache
def works(fails: bool) -> st.SearchStrategy[Work]:
    return st.builds(
        Work,
        st.sampled_from(RARELY_IN_THREADS if fails else CALM_KINDS),
        evenly(0, 3),
        st.one_of(st.none(), evenly(0, FAILED_AT - 1)) if fails else st.none(),
        evenly(1, 3),
        st.booleans() if fails else st.just(False),
    )


@cache
def joins(most: int) -> st.SearchStrategy[Join]:
    counts = evenly(1, most)
    return st.one_of(st.just(Join()), st.builds(Join, st.sampled_from(["first", "quorum"]), counts))


@st.composite
def pars(draw: st.DrawFn, depth: int, calm: bool) -> Par:
    branches = draw(st.lists(nets(depth - 1, calm), min_size=1, max_size=3))
    if calm:
        return Par(tuple(branches), Join(), None, None)
    join = draw(st.one_of(joins(len(branches)), st.sampled_from([None, majority(answer)])))
    timeout = draw(timeouts)
    on_timeout = draw(st.sampled_from([None, "fail", "partial"])) if timeout is not None else None
    return Par(tuple(branches), join, timeout, on_timeout, draw(st.booleans()))


@st.composite
def polls(draw: st.DrawFn, depth: int) -> Poll:
    samples = draw(st.sampled_from([None, None, 2, 3]))
    branches = draw(st.lists(nets(depth - 1), min_size=1, max_size=1 if samples else 3))
    most = samples or len(branches)
    needed = draw(st.sampled_from(["majority", "plurality", *range(1, most + 1)]))
    has_ties = needed == "plurality" or (isinstance(needed, int) and needed <= most / 2)
    return Poll(tuple(branches), samples, needed, draw(st.booleans()) and has_ties, draw(timeouts))


@st.composite
def choices(draw: st.DrawFn, depth: int, calm: bool) -> Choice:
    cases = draw(st.lists(nets(depth - 1, calm), min_size=1, max_size=2))
    default = nets(depth - 1, calm)
    return Choice(tuple(cases), draw(default if calm else st.one_of(st.none(), default)), draw(st.booleans()))


@st.composite
def fans(draw: st.DrawFn, depth: int) -> Fan:
    most = draw(evenly(1, 4))
    return Fan(
        draw(nets(depth - 1)),
        draw(st.one_of(st.none(), nets(depth - 1))),
        draw(joins(most)),
        draw(evenly(1, 5)),
        draw(st.booleans()),
        most,
        draw(st.one_of(st.none(), evenly(1, 3))),
        draw(st.booleans()),
        draw(timeouts),
    )


@st.composite
def brackets(draw: st.DrawFn, depth: int, calm: bool) -> Bracket:
    each = st.none() if depth <= 0 else weighted((1, st.none()), (2, nets(depth - 1, True)), (1, nets(depth - 1, calm)))
    return Bracket(
        draw(each),
        draw(evenly(1, 4)),
        draw(withins),
        draw(st.sampled_from([None, None, 2])),
        draw(st.booleans()),
        None if calm else draw(st.sampled_from([None, None, None, 0, 1])),
    )


@cache
def agains(depth: int, calm: bool) -> st.SearchStrategy[Again]:
    never = st.just(False)
    return st.builds(
        Again,
        nets(depth - 1, calm),
        evenly(1, 4),
        evenly(1, 4),
        never if calm else st.booleans(),
        st.booleans(),
        never if calm else st.booleans(),
    )


@cache
def lines(depth: int, calm: bool) -> st.SearchStrategy[Lines]:
    bad = st.none() if calm else st.sampled_from([None, None, 0])
    return st.builds(Lines, nets(depth - 1, calm), evenly(1, 3), st.booleans(), bad)


@cache
def bodied(depth: int, calm: bool) -> st.SearchStrategy[Any]:
    """Nodes that have bodies and may stand anywhere."""
    both = [pars(depth, calm), choices(depth, calm), agains(depth, calm), lines(depth, calm), brackets(depth, calm)]
    return st.one_of(*both) if calm else st.one_of(*both, fans(depth), polls(depth))


@cache
def nets(depth: int, calm: bool = False) -> st.SearchStrategy[Net]:
    """Stages in a row, with bodies nested up to `depth` deep. In a calm network nothing fails or is skipped, and what
    comes out does not depend on timing."""
    spies = st.builds(Spy, evenly(0, 3), st.sampled_from(["drop_newest", "drop_oldest"]))
    sieves = st.builds(Sieve, st.booleans(), evenly(0, 4))
    node = weighted((6, works(not calm)), (0 if calm else 2, sieves), (1, spies))
    if depth > 0:
        node = st.one_of(node, bodied(depth, calm))
    return st.lists(node, min_size=1, max_size=2).map(tuple)


@cache
def top_only(depth: int) -> st.SearchStrategy[Any]:
    """Nodes that stand on the top-level chain only."""
    keys = st.sampled_from([None, None, 2])
    bad = st.sampled_from([None, None, None, 0, 1])
    return st.one_of(
        st.builds(Collapsed, evenly(1, 4), withins, keys, st.booleans()),
        st.builds(Expand, evenly(1, 4), st.booleans(), evenly(1, 3), bad),
        st.builds(Fold, nets(depth - 1), evenly(1, 6), st.booleans(), evenly(1, 3), evenly(2, 6), bad),
    )


@cache
def tops(depth: int) -> st.SearchStrategy[Net]:
    """Whole pipelines."""
    before = weighted((2, nets(depth)), (1, st.just(())))
    mixed = st.tuples(before, top_only(depth), nets(depth - 1)).map(lambda parts: (*parts[0], parts[1], *parts[2]))
    twice = st.tuples(top_only(1), nets(1), top_only(1)).map(lambda parts: (parts[0], *parts[1], parts[2]))
    several = st.lists(bodied(depth - 1, False), min_size=1, max_size=3).map(tuple)
    return weighted((2, nets(depth)), (2, several), (3, mixed), (1, twice))
