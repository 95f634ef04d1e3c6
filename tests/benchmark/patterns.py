"""What concurrency buys an item: the same agents one after the other or side by side, by configuration only.

    python tests/benchmark/patterns.py

The agents ask the simulated model, which takes `--latency` for an answer, through the real client stack. The package
has to be installed, because stage words are entry points. One prompt at a time: this is about an item's own time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from rounds import Timings, heading, save, table, take_turns

from pipeline import Pipeline
from pipeline.config.description import load

CONFIGS = Path(__file__).parents[2] / "configs"
PROMPT = "software teams"
QUICK_ENDS = ("stages.lead.model=sim/default", "stages.writer.model=sim/default")  #: lead and writer take no time


@dataclass(frozen=True)
class Way:
    """A pipeline file and what is set in it, as `penstock run FILE --set ...` has it."""

    file: str
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.file, *(f"--set {setting}" for setting in self.settings)))


@dataclass(frozen=True)
class Comparison:
    name: str
    one_by_one: Way
    together: Way
    goal: float  #: how many times as fast, at least


COMPARISONS = (
    Comparison("three agents", Way("sequential.yaml"), Way("parallel.yaml"), 2.9),
    Comparison(
        "ten subagents",
        Way("research.yaml", (*QUICK_ENDS, "stages.subagent.concurrency=1")),
        Way("research.yaml", (*QUICK_ENDS, "stages.subagent.concurrency=32")),
        1 / (1 - 0.88),
    ),
    Comparison(
        "lead, ten subagents, writer",
        Way("research.yaml", ("stages.subagent.concurrency=1",)),
        Way("research.yaml", ("stages.subagent.concurrency=32",)),
        12 / 3 * 0.97,
    ),
)


async def once(way: Way, latency: str) -> float:
    """Seconds from opening the run to the record of one prompt."""
    description = load(CONFIGS / way.file, overrides=[f"models.fake.latency={latency}", *way.settings])
    pipe = Pipeline(description.stages, variables=description.vars, **description.options)  # type: ignore[arg-type]
    start = time.perf_counter()
    async with pipe.open([PROMPT]) as run:
        statuses = [record.status async for record in run.results]
        seconds = time.perf_counter() - start
    if statuses != ["ok"]:
        raise SystemExit(f"{way}: {statuses}")
    return seconds


def measured(backend: str, options: argparse.Namespace) -> Timings:
    timings = Timings()
    turns = [
        (comparison.name, kind, partial(anyio.run, once, way, options.latency, backend=backend))
        for comparison in COMPARISONS
        for kind, way in (("one by one", comparison.one_by_one), ("together", comparison.together))
    ]
    for comparison in COMPARISONS:
        anyio.run(once, comparison.together, "0s", backend=backend)  # warm: imports, templates
    for number in range(options.rounds):
        take_turns(number, turns, timings)
    return timings


def report(backend: str, timings: Timings) -> list[Sequence[object]]:
    lines: list[Sequence[object]] = []
    for comparison in COMPARISONS:
        name = comparison.name
        slow, fast = timings.best(name, "one by one"), timings.best(name, "together")
        ratio = slow / fast
        saved = f"{1 - fast / slow:.1%} (goal {1 - 1 / comparison.goal:.1%})"
        lines.append((f"{name}, {backend}", f"{slow:.3f} s", f"{fast:.3f} s", f"{ratio:.2f}", saved))
    return lines


def main() -> None:
    options = arguments()
    print(heading("What concurrency buys an item", "python " + " ".join(sys.argv)))
    for comparison in COMPARISONS:
        print(f"- {comparison.name}: `{comparison.one_by_one}` against `{comparison.together}`")
    lines: list[Sequence[object]] = []
    saved: dict[str, object] = {}
    for backend in ("asyncio", "trio") if options.backend == "both" else (options.backend,):
        timings = measured(backend, options)
        lines += report(backend, timings)
        saved[backend] = {f"{row}: {kind}": seconds for (row, kind), seconds in timings.seconds.items()}
    print("\n" + table(("an item's way", "one by one", "together", "times as fast", "wall time saved"), lines))
    save(options.json, {"latency": options.latency, "seconds": saved})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("asyncio", "trio", "both"), default="both")
    parser.add_argument("--latency", default="1s", help="of every simulated answer")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the seconds of every round here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
