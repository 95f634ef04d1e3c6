"""How long the command and the packages take to start, with compiled bytecode, each in a process of its own.

python tests/benchmark/startup.py
"""

from __future__ import annotations

import argparse
import compileall
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rounds import Timings, heading, save, table, take_turns

#: what is started, and the goal in milliseconds
PROGRAMS: dict[str, tuple[list[str], int | None]] = {
    "python -c pass": ([sys.executable, "-c", "pass"], None),
    "import anyio": ([sys.executable, "-c", "import anyio"], None),
    "import pipeline, stages": ([sys.executable, "-c", "import pipeline, stages"], None),
    "penstock --help": (["penstock", "--help"], 200),
    "penstock --version": (["penstock", "--version"], None),
}


def seconds_of(command: Sequence[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return seconds


def compile_packages() -> None:
    for package in ("pipeline", "stages"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations if spec else None) or ():
            compileall.compile_dir(place, quiet=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the seconds of every round here")
    options = parser.parse_args()
    compile_packages()
    penstock = shutil.which("penstock", path=str(Path(sys.executable).parent)) or shutil.which("penstock")
    programs = {name: command for name, (command, _) in PROGRAMS.items() if command[0] != "penstock"}
    if penstock is None:
        print("the command is not installed here, so it is not measured", file=sys.stderr)
    else:
        programs |= {name: [penstock, *each[1:]] for name, (each, _) in PROGRAMS.items() if each[0] == "penstock"}
    timings = Timings()
    turns = [("start", name, partial(seconds_of, command)) for name, command in programs.items()]
    take_turns(0, turns, Timings())  # warm, not counted
    for number in range(options.rounds):
        take_turns(number, turns, timings)
    print(heading("Starting", "python " + " ".join(sys.argv)))
    lines: list[Sequence[object]] = []
    for name in programs:
        best, median = timings.best("start", name), timings.median("start", name)
        goal = PROGRAMS[name][1]
        lines.append((name, f"{best * 1000:.0f} ms", f"{median * 1000:.0f} ms", f"{goal} ms" if goal else ""))
    print(table(("program", "best", "median", "goal"), lines))
    save(options.json, {name: seconds for (_, name), seconds in timings.seconds.items()})


if __name__ == "__main__":
    main()
