"""Puts each seeded bug into a copy of the tree, and demands that the tests notice it.

    python tests/seeded/check.py            all of them
    python tests/seeded/check.py -n 2 slot  those with "slot" in their names, two at a time

A bug is a patch beside this file. Its first lines say what is broken and which tests are to notice, their ids two
spaces apart. One of them has to fail by an assertion, by a broken invariant or because the run stalled, within a time
limit, and all have to pass without the patch. A hang that nothing but the time limit ended counts as not noticed. Exit
code 1 if a bug survives.

Hunks are found by their text, not by line numbers, so that a patch outlives changes elsewhere in the file. Where the
text is not found exactly once the patch is out of date, which is an error.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
COPIED = ("pipeline", "stages", "tests", "configs", "pyproject.toml")
TOLD = "failed by: "

#: what a test may fail by to have noticed a bug
NOTICED = frozenset({"AssertionError", "Failed", "InvariantError", "Stalled"})

#: real seconds that the tests of one bug may take
LIMIT = 120


class OutOfDate(Exception):
    """A patch that does not fit the tree."""


@dataclass(frozen=True)
class Hunk:
    """A text that has to be in a file once, and what stands there with the bug."""

    file: str
    before: str
    after: str

    def apply(self, tree: Path) -> None:
        path = tree / self.file
        text = path.read_text()
        if text.count(self.before) != 1:
            raise OutOfDate(f"{self.file} has {text.count(self.before)} times, not once:\n{self.before}")
        path.write_text(text.replace(self.before, self.after))


@dataclass(frozen=True)
class Bug:
    """A seeded bug."""

    name: str
    broken: str  #: what is wrong with it
    tests: tuple[str, ...]  #: ids of tests of which one has to fail
    hunks: tuple[Hunk, ...]

    @classmethod
    def read(cls, path: Path) -> Bug:
        lines = path.read_text().splitlines(keepends=True)
        broken, tests = (line.partition(": ")[2].strip() for line in lines[:2])
        return cls(path.stem, broken, tuple(tests.split("  ")), tuple(hunks_of(lines[2:])))

    def apply(self, tree: Path) -> None:
        for hunk in self.hunks:
            hunk.apply(tree)


def hunks_of(lines: Sequence[str]) -> Iterator[Hunk]:
    """Read the hunks of a unified diff."""
    file, before, after = "", "", ""
    for line in (*lines, "@@"):
        if line.startswith(("--- ", "@@")):
            if before:
                yield Hunk(file, before, after)
            before = after = ""
        elif line.startswith("+++ "):
            file = line.split()[1].partition("/")[2]
        else:
            before += line[1:] if line[0] in " -" else ""
            after += line[1:] if line[0] in " +" else ""


def bugs(words: Sequence[str] = ()) -> list[Bug]:
    """All seeded bugs, or those with one of `words` in their names."""
    found = [Bug.read(path) for path in sorted(HERE.glob("*.patch"))]
    return [bug for bug in found if not words or any(word in bug.name for word in words)]


def copy_of_the_tree(into: Path) -> Path:
    """Copy what the tests need."""
    for name in COPIED:
        source = TREE / name
        if source.is_dir():
            shutil.copytree(source, into / name)
        else:
            shutil.copy2(source, into / name)
    return into


def tested(tree: Path, tests: Sequence[str], limit: float) -> tuple[int, str]:
    """Run `tests` in `tree`: pytest's exit code and output. A run beyond the limit has the code -1."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "tests.seeded.why", *tests]
    try:
        done = subprocess.run(command, cwd=tree, timeout=limit, text=True, capture_output=True, check=False)
    except subprocess.TimeoutExpired as late:
        return -1, f"not done within {limit:g} s\n{late.stdout}"
    return done.returncode, done.stdout + done.stderr


def verdict(code: int, output: str) -> str | None:
    """What noticed the bug, or None."""
    if code != 1:
        return None
    told = next((line for line in output.splitlines() if line.startswith(TOLD)), TOLD)
    kinds = set(told.removeprefix(TOLD).split())
    return told if kinds & NOTICED else None


def survives(bug: Bug) -> str | None:
    """Put `bug` into a copy of the tree. None when it is noticed, else what happened instead."""
    started = monotonic()
    with TemporaryDirectory() as place:
        tree = copy_of_the_tree(Path(place))
        try:
            bug.apply(tree)
        except OutOfDate as error:
            return f"out of date: {error}"
        code, output = tested(tree, bug.tests, LIMIT)
    told = verdict(code, output)
    if told is None:
        return f"exit code {code}\n{output[-3000:]}"
    failed = next((line.split()[1] for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))), "?")
    print(f"noticed   {bug.name:32} {monotonic() - started:5.1f} s  {failed} {told}", flush=True)
    return None


def check(chosen: Sequence[Bug], at_once: int) -> list[str]:
    """Check the bugs; names of those that survive, and `the tree itself` when it fails the tests without them."""
    bad: list[str] = []
    with ThreadPoolExecutor(at_once) as pool:
        tests = sorted({test for bug in chosen for test in bug.tests})
        whole = pool.submit(tested, TREE, tests, LIMIT * 5)
        for bug, outcome in zip(chosen, pool.map(survives, chosen), strict=True):
            if outcome is not None:
                bad.append(bug.name)
                print(f"SURVIVES  {bug.name}: {bug.broken}\n{outcome}", flush=True)
        code, output = whole.result()
    if code != 0:
        bad.append("the tree itself")
        print(f"FAILS     without any bug, exit code {code}\n{output[-3000:]}", flush=True)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description="Demand that the tests notice each seeded bug.")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="bugs at a time")
    parser.add_argument("words", nargs="*", help="only bugs with one of these in their names")
    options = parser.parse_args()
    chosen = bugs(options.words)
    bad = check(chosen, options.n)
    print(f"{len(chosen)} bugs, not as it should be: {', '.join(bad) or 'none'}")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
