"""Which crashes are tried: a choice by a seed, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

BACKENDS = ("asyncio", "trio")
THREADS = 0.2  #: share of cases whose writer is a thread, as it is for users
MORE = 4  #: points after recovery that are struck as well, when it is recovery that is meant
ALIKE = 2  #: crashes of each workload while its journal is made
PAIRS, TRIPLES = 0.25, 0.10  #: shares of cases with a second crash, and with two more


@dataclass(frozen=True)
class Case:
    """A workload that is killed at the n-th point of its first life, of its second, …; 0 is a life that is not."""

    workload: str
    backend: str
    mode: str
    kills: tuple[int, ...]

    def __str__(self) -> str:
        return "/".join((self.workload, self.backend, self.mode, ",".join(map(str, self.kills))))

    @classmethod
    def parse(cls, text: str) -> Case:
        workload, backend, mode, kills = text.split("/")
        return cls(workload, backend, mode, tuple(int(kill) for kill in kills.split(",") if kill))


@dataclass(frozen=True)
class Extent:
    """The points that an undisturbed run passes, phase by phase."""

    points: tuple[tuple[str, ...], ...]
    recovering: int  #: points of a run that goes on before it writes anything new

    def at(self, place: int) -> tuple[int, ...]:
        """The kills that strike first at the point `place`, counted over all phases."""
        before: list[int] = []
        for points in self.points:
            if place < len(points):
                return (*before, place + 1)
            place -= len(points)
            before.append(0)
        raise IndexError(place)

    def __len__(self) -> int:
        return sum(map(len, self.points))


def choose(workload: str, backend: str, extent: Extent, count: int, seed: int) -> Iterator[Case]:
    """`count` cases: crashes at every place once before one comes twice, and among them chains of two and three."""
    chance = Random(f"{seed} {workload} {backend}")
    places = _places(extent, chance)
    for _ in range(count):
        kind = chance.random()
        kills = extent.at(next(places))
        if kind < PAIRS + TRIPLES:
            kills += (_second(extent, chance),)
        if kind < TRIPLES:
            kills += (_second(extent, chance),)
        yield Case(workload, backend, "threads" if chance.random() < THREADS else "inline", kills)


def recoveries(workload: str, backend: str, extent: Extent, count: int) -> Iterator[Case]:
    """Pairs: a crash, and one at each point of what recovers from it; all of them if `count` is enough for that."""
    seconds = extent.recovering + MORE
    wanted = min(len(extent), max(1, count // seconds))
    firsts = [(2 * number + 1) * len(extent) // (2 * wanted) for number in range(wanted)]
    pairs = [(first, second) for first in firsts for second in range(1, seconds + 1)]
    for first, second in pairs[:count]:
        yield Case(workload, backend, "inline", (*extent.at(first), second))


def triples(workload: str, backend: str, extent: Extent, count: int, seed: int) -> Iterator[Case]:
    """Crashes whose recovery is killed, and the recovery from that."""
    chance = Random(f"{seed} {workload} {backend} triples")
    for _ in range(count):
        more = (chance.randint(1, extent.recovering + MORE) for _ in range(2))
        yield Case(workload, backend, "inline", (*extent.at(chance.randrange(len(extent))), *more))


def _places(extent: Extent, chance: Random) -> Iterator[int]:
    """All places in one order after another, but of those at the start, which all workloads have alike, first two."""
    names = [name for points in extent.points for name in points]
    alike = [at for at, name in enumerate(names) if name.startswith("create")]
    chance.shuffle(alike)
    first = [*alike[:ALIKE], *(at for at, name in enumerate(names) if not name.startswith("create"))]
    chance.shuffle(first)
    yield from (*first, *alike[ALIKE:])
    while True:
        yield from chance.sample(range(len(names)), len(names))


def _second(extent: Extent, chance: Random) -> int:
    return chance.randint(1, extent.recovering + MORE) if chance.random() < 0.6 else chance.randint(1, len(extent))
