"""Kill a run at every point, resume it, and compare: `python -m tests.durability.crash --cases 12000`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from tests.durability.crash.cases import BACKENDS, Case, choose, recoveries, triples
from tests.durability.crash.judging import Verdict, judge
from tests.durability.crash.playing import Played, Undisturbed, play, undisturbed
from tests.durability.crash.workloads import Workload, workloads

COMMAND = "python -m tests.durability.crash --case"


@dataclass
class Tally:
    """What happened in the cases of a workload."""

    cases: int = 0
    struck: int = 0
    recovering: int = 0  #: kills that struck before a resumed life wrote anything new
    states: Counter[str] = field(default_factory=Counter[str])
    printed: int = 0
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
        for name in ("printed", "unsent", "repeated", "gone"):
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        if verdict.faults:
            self.failures.append("\n".join([f"{COMMAND} {str(case)!r}", *verdict.faults]))


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
        workload: Workload = self.workloads[case.workload]
        right = self.right(case.workload, case.backend)
        played = play(workload, case, self.place)
        return played, judge(workload, right, played)


def chosen(runs: Runs, options: argparse.Namespace) -> Iterator[Case]:
    """The cases that were asked for; a shard has those of its workloads, so that it needs few undisturbed runs."""
    if options.case:
        yield Case.parse(options.case)
        return
    pairs = [(name, backend) for name in (options.workload or runs.workloads) for backend in BACKENDS]
    index, count = options.shard
    for place, (name, backend) in enumerate(pairs):
        if place % count != index:
            continue
        extent = runs.right(name, backend).extent
        share = options.cases // len(pairs) + (place < options.cases % len(pairs))
        if options.recovery:
            each = max(1, share * 3 // 4 // (extent.recovering + 2))
            first = [number * len(extent) // each for number in range(min(each, len(extent)))]
            found = list(recoveries(name, backend, extent, first))
            yield from found
            yield from triples(name, backend, extent, max(0, share - len(found)), options.seed)
        else:
            yield from choose(name, backend, extent, share, options.seed)


def shard(text: str) -> tuple[int, int]:
    index, count = map(int, text.split("/"))
    return index - 1, count


def table(tallies: dict[str, Tally]) -> str:
    columns = ("cases", "struck", "recovering", "states", "printed", "unsent", "repeated", "gone", "failures")
    lines = [f"{'workload':<14}" + "".join(f"{column:>11}" for column in columns)]
    whole = Tally()
    for name, tally in tallies.items():
        lines.append(_row(name, tally))
        for column in ("cases", "struck", "recovering", "states", "printed", "unsent", "repeated", "gone", "failures"):
            setattr(whole, column, getattr(whole, column) + getattr(tally, column))
    hit = ", ".join(f"{name} {count}" for name, count in sorted(whole.states.items()))
    return "\n".join([*lines, _row("all", whole), f"states: {hit}"])


def _row(name: str, tally: Tally) -> str:
    numbers = (tally.cases, tally.struck, tally.recovering, len(tally.states), tally.printed, tally.unsent)
    numbers += (tally.repeated, tally.gone, len(tally.failures))
    return f"{name:<14}" + "".join(f"{number:>11}" for number in numbers)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.durability.crash", description=__doc__)
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workload", action="append")
    parser.add_argument("--recovery", action="store_true", help="crashes inside recovery: all pairs, and triples")
    parser.add_argument("--shard", type=shard, default=(0, 1), metavar="I/N")
    parser.add_argument("--case", help="one case, as a failure names it")
    parser.add_argument("--most", type=int, default=20, help="failures after which it ends")
    options = parser.parse_args()
    tallies: dict[str, Tally] = {}
    start = monotonic()
    shared = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="crash-", dir=shared if shared.is_dir() else None))
    try:
        runs = Runs(place / "case")
        for case in chosen(runs, options):
            tally = tallies.setdefault(case.workload, Tally())
            tally.add(case, *runs.play(case))
            if sum(len(each.failures) for each in tallies.values()) >= options.most:
                break
    finally:
        shutil.rmtree(place)
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    print("\n\n".join([*failures, table(tallies), f"{monotonic() - start:.1f} s"]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
