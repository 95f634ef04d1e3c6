"""Random histories: what comes into a random network, what bounds it, what its host does meanwhile, how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.engine.drawing import evenly, tops, weighted
from tests.engine.networks import TICK, Collapsed, Expand, Net, has, timing_matters, waits_between_children

#: seconds for which nothing ever stands still here
LONG = 60.0


@dataclass(frozen=True)
class Ask:
    """A submit: when, what, whether it waits for a credit, and after how long its caller is cancelled."""

    at: float
    value: int
    wait: bool
    patience: float | None


@dataclass(frozen=True)
class Ending:
    """How the host leaves: when, and what makes it."""

    at: float
    kind: str  #: scope, native, raise, abort


@dataclass(frozen=True)
class Plan:
    """One history."""

    net: Net
    values: tuple[int, ...]
    source: str  #: list, slow; or one that breaks: broken list, broken slow
    max_in_flight: int
    ordered: bool
    buffer_size: int | None
    item_timeout: float | None
    stall_timeout: float | None
    on_error: str
    max_failures: int | None
    take: int | None  #: records after which the host stops to read
    then: str  #: and does: leave, or block for long and read the rest
    pace: float
    reading: str  #: plain, or given up and begun again: by a scope, or natively
    ending: Ending | None
    acts: tuple[tuple[float, str], ...]
    asks: tuple[Ask, ...]
    seed: int = 0

    @property
    def undisturbed(self) -> bool:
        """Whether every record of the source has to come out, as the network makes it."""
        ends = {"drain items", "drain calls", "abort"}
        leaves = self.take is not None and self.then == "leave"
        disturbed = leaves or self.ending is not None or self.source.startswith("broken")
        limited = self.max_failures is not None or self.item_timeout is not None
        return not disturbed and not limited and not any(act in ends for _, act in self.acts)

    @property
    def predictable(self) -> bool:
        """Whether the oracle knows how each item ends that is not cut short."""
        cut = waits_between_children(self.net) and not self.undisturbed
        left = self.item_timeout is not None and has(self.net, Collapsed)  # members of a batch leave it
        return not cut and not left and not timing_matters(self.net)

    @property
    def joined(self) -> bool:
        """Whether each root leaves one record at most."""
        return not any(isinstance(node, Expand | Collapsed) for node in self.net)


moments = evenly(0, 12).map(lambda half: half * TICK / 2)
#: moments at which nothing else happens
quiet = evenly(0, 12).map(lambda half: half * TICK / 2 + 0.13)
acts = st.tuples(
    moments,
    st.sampled_from(["pause", "ask why", "narrow", "narrow", "widen", "widen", "drain items", "drain calls", "abort"]),
)
asks = st.builds(Ask, moments, evenly(0, 99), st.booleans(), st.one_of(st.none(), moments))
endings = st.builds(Ending, quiet, st.sampled_from(["scope", "native", "raise"]))
some_values = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 8, 10, 12]).flatmap(
    lambda count: st.lists(evenly(0, 99), min_size=count, max_size=count).map(tuple)
)


def plans_of(nets: st.SearchStrategy[Net]) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        values=some_values,
        source=st.sampled_from(["list"] * 5 + ["slow"] * 5 + ["broken list", "broken slow"]),
        max_in_flight=evenly(1, 6),
        ordered=st.booleans(),
        buffer_size=st.sampled_from([None, 0, 1]),
        item_timeout=st.sampled_from([None] * 8 + [2.0, 50.0]),
        stall_timeout=st.sampled_from([None] * 9 + [LONG]),
        on_error=st.sampled_from(["dead_letter", "dead_letter", "skip"]),
        max_failures=st.sampled_from([None] * 16 + [0, 1]),
        take=st.sampled_from([None] * 10 + [0, 1, 3]),
        then=st.sampled_from(["leave", "block"]),
        pace=st.sampled_from([0.0, 0.0, 0.0, 0.7]),
        reading=st.sampled_from(["plain"] * 4 + ["scope", "native"]),
        ending=weighted((5, st.none()), (1, endings)),
        acts=weighted((2, st.just(())), (1, st.lists(acts, min_size=1, max_size=2).map(tuple))),
        asks=weighted((2, st.just(())), (1, st.lists(asks, min_size=1, max_size=3).map(tuple))),
        seed=evenly(0, 9),
        net=nets,  # the last, because a mutation of it shifts what is drawn after it, and much of that becomes 0
    )


plans = plans_of(tops(3))
