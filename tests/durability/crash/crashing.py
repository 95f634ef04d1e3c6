"""Plays many cases, and counts what came of them."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.durability.crash import hostile
from tests.durability.crash.cases import BACKENDS, Case, choose, recoveries, triples
from tests.durability.crash.judging import Verdict, judge
from tests.durability.crash.playing import Played, Undisturbed, play, undisturbed
from tests.durability.crash.powerless import RECORDED, Losses, lose_power
from tests.durability.crash.recording import DB, LOG
from tests.durability.crash.workloads import workloads

COMMAND = "python -m tests.durability.crash"
COLUMNS = ("cases", "struck", "recovering", "states", "begun", "unsent", "repeated", "gone", "failures")


@dataclass
class Tally:
    """What happened in the cases of a workload."""

    cases: int = 0
    struck: int = 0  #: kills
    recovering: int = 0  #: those of them that struck before a life that resumes wrote anything new
    states: Counter[str] = field(default_factory=Counter[str])  #: points that were struck
    begun: int = 0
    unsent: int = 0
    repeated: int = 0
    gone: int = 0
    failures: list[str] = field(default_factory=list[str])

    def add(self, case: Case, played: Played, verdict: Verdict) -> None:
        self.cases += 1
        for number, life in played.crashes():
            self.struck += 1
            self.recovering += life.recovering and number > 0
            self.states[str(life.struck)] += 1
        for name in ("begun", "unsent", "repeated", "gone"):
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        if verdict.faults:
            self.failures.append("\n".join([f"{COMMAND} --case {str(case)!r}", *verdict.faults]))

    def plus(self, other: Tally) -> Tally:
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in COLUMNS})

    def row(self, name: str) -> str:
        numbers = {**asdict(self), "states": len(self.states), "failures": len(self.failures)}
        return f"{name:<14}" + "".join(f"{number:>11}" for number in numbers.values())


class Runs:
    """The workloads, and what they do undisturbed, found out when it is first asked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.workloads = workloads()
        self._right: dict[tuple[str, str], Undisturbed] = {}

    def right(self, workload: str, backend: str) -> Undisturbed:
        key = workload, backend
        if key not in self._right:
            self._right[key] = undisturbed(self.workloads[workload], backend, self.place)
        return self._right[key]

    def play(self, case: Case) -> tuple[Played, Verdict]:
        workload = self.workloads[case.workload]
        right = self.right(case.workload, case.backend)
        played = play(workload, case, self.place)
        return played, judge(workload, right, played)


def crash(runs: Runs, options: Namespace) -> dict[str, Tally]:
    """Play the cases that were asked for, until enough have failed."""
    tallies: dict[str, Tally] = {}
    for case in _chosen(runs, options):
        tally = tallies.setdefault(case.workload, Tally())
        tally.add(case, *runs.play(case))
        if sum(len(each.failures) for each in tallies.values()) >= options.most:
            break
    return tallies


def table(tallies: Mapping[str, Tally]) -> str:
    head = f"{'workload':<14}" + "".join(f"{column:>11}" for column in COLUMNS)
    whole = whole_of(tallies)
    hit = ", ".join(f"{name} {count}" for name, count in sorted(whole.states.items()))
    return "\n".join(
        [head, *(tally.row(name) for name, tally in tallies.items()), whole.row("all"), f"struck at: {hit}"]
    )


def whole_of(tallies: Mapping[str, Tally]) -> Tally:
    whole = Tally()
    for tally in tallies.values():
        whole = whole.plus(tally)
    return whole


def _chosen(runs: Runs, options: Namespace) -> Iterator[Case]:
    """A shard has some of the workloads, all cases of each, so that it needs few undisturbed runs."""
    if options.case:
        yield Case.parse(options.case)
        return
    pairs = [(name, backend) for name in (options.workload or runs.workloads) for backend in BACKENDS]
    for place, (name, backend) in _share(pairs, options.shard):
        extent = runs.right(name, backend).extent
        count = _part(options.cases, place, len(pairs))
        if not options.recovery:
            yield from choose(name, backend, extent, count, options.seed)
            continue
        found = list(recoveries(name, backend, extent, count * 3 // 4))
        yield from found
        yield from triples(name, backend, extent, max(0, count - len(found)), options.seed)


def _share(all: list[Any], shard: tuple[int, int]) -> list[tuple[int, Any]]:
    index, count = shard
    return [(place, each) for place, each in enumerate(all) if place % count == index]


def _part(cases: int, place: int, parts: int) -> int:
    return cases // parts + (place < cases % parts)


def disks(runs: Runs, options: Namespace) -> dict[str, Losses]:
    """Try the states that a loss of power leaves."""
    if options.case:
        recorded = [Case.parse(options.case)]
    else:
        recorded = [Case(name, backend, "inline", kills) for name, kills in RECORDED for backend in BACKENDS]
    found: dict[str, Losses] = {}
    for place, case in _share(recorded, options.shard):
        losses = found.setdefault(str(case), Losses())
        right = runs.right(case.workload, case.backend)
        count = options.each or _part(options.cases, place, len(recorded))
        lose_power(runs.workloads[case.workload], right, case, count, options.seed, runs.place, losses, options.state)
    return found


def attacks(runs: Runs, options: Namespace) -> dict[str, Losses]:
    """Try journals that were damaged or tampered with."""
    case = Case("sequence", "asyncio", "inline", (70,))
    workload, right = runs.workloads[case.workload], runs.right(case.workload, case.backend)
    files = hostile.left_open(workload, case, runs.place)
    folded = hostile.folded(files, runs.place)
    earlier = hostile.left_open(workload, Case(case.workload, case.backend, "inline", (50,)), runs.place)
    chance, some = Random(options.seed), max(4, options.cases // 20)
    damages = {
        "database, flipped": hostile.flips(folded, DB, options.cases * 6 // 10, chance),
        "log, flipped": hostile.flips(files, LOG, options.cases // 10, chance),
        "database, cut": hostile.cuts(folded, DB, some, chance),
        "log, cut": hostile.cuts(files, LOG, some, chance),
        "swapped": hostile.swaps(files, {"an earlier moment": earlier, "one that was folded": folded}),
        "changed": iter(list(hostile.changes(folded, runs.place))),
        "forged": iter(list(hostile.forgeries(folded, runs.place))),
    }
    found: dict[str, Losses] = {}
    for _, (name, each) in _share(list(damages.items()), options.shard):
        found[name] = Losses()
        hostile.attack(workload, right, each, case, runs.place, found[name], forged=name == "forged")
    return found


def losses_table(found: Mapping[str, Losses]) -> str:
    lines = [f"{'':<34}{'states':>9}{'right':>9}{'refused':>9}{'faults':>9}"]
    whole = Losses()
    for name, each in found.items():
        lines.append(_losses_row(name, each))
        whole = Losses(whole.right + each.right, whole.refused + each.refused, whole.faults + each.faults)
    reasons = [f"  refused {count:>5}: {reason[:120]}" for reason, count in whole.refused.most_common(12)]
    return "\n".join([*lines, _losses_row("all", whole), *reasons])


def _losses_row(name: str, each: Losses) -> str:
    return f"{name:<34}{each.total:>9}{each.right:>9}{each.refused.total():>9}{len(each.faults):>9}"
