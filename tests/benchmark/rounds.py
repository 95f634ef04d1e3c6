"""Contestants measured in turns, so that what else the machine does hits all of them alike; and tables of it."""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Turn = tuple[str, str, Callable[[], float]]


@dataclass
class Timings:
    """Seconds of every round, by (row, contestant), in the order in which they first came; and who could not be had."""

    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, contestant: str, seconds: float) -> None:
        self.seconds.setdefault((row, contestant), []).append(seconds)

    def best(self, row: str, contestant: str) -> float:
        return min(self.seconds[row, contestant])

    def median(self, row: str, contestant: str) -> float:
        return statistics.median(self.seconds[row, contestant])

    def contestants(self, row: str) -> list[str]:
        return [contestant for each, contestant in self.seconds if each == row]


def take_turns(number: int, turns: Sequence[Turn], timings: Timings) -> None:
    """Round `number`: let each (row, contestant, measure) have its turn. Garbage is collected in between, untimed."""
    # every other round goes backwards, so that nobody always comes after the same neighbour
    for row, contestant, measure in turns if number % 2 == 0 else reversed(turns):
        gc.collect()
        timings.add(row, contestant, measure())


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A markdown table; the first column is text, the others are numbers or text aligned to the right."""
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def load() -> str:
    """How busy the machine is, for the reader of a table."""
    one, five, _ = os.getloadavg()
    return f"load {one:.1f} over 1 minute, {five:.1f} over 5, on {os.cpu_count()} cores"


def heading(title: str, command: str) -> str:
    """What stands above a table: what it is, how to repeat it, where it was measured."""
    where = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {load()}"
    return f"## {title}\n\n    {command}\n\n{where}\n"


def save(path: Path | None, result: Mapping[str, object]) -> None:
    """Write the numbers behind a table as JSON, if a path was given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
