"""Runs in a store of a test's own: begun, killed, looked into."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import NamedTuple

from tests.cli.command import RUNS, Ended, Running, penstock

#: what holds records that say `hang`, and fails those that say `fail`, for as long as there is a file that says so
GATE = """\
import os
import anyio

async def gate(text):
    while 'hang' in text and os.path.exists('hold'):
        await anyio.sleep(0.01)
    if 'fail' in text and os.path.exists('failing'):
        raise ValueError("not now")
    return text
"""

#: four agents in a row; each says what it was given, so that outputs show what was asked
FOUR = """\
version: 1
models:
  fake: {use: sim/echo, fail_when: refuse}
stages:
  - agent: one
    prompt: "1 {{ prompt }}"
  - agent: two
    prompt: "2 {{ one }}"
  - map: gate
    call: gate:gate
    concurrency: 16
  - agent: three
    prompt: "3 {{ two }}"
  - agent: four
    prompt: "4 {{ three }}"
"""


class Place(NamedTuple):
    """A directory where a test works, with a store beside it."""

    here: Path
    store: Path

    def penstock(self, *args: str | Path, stdin: bytes = b"", **env: str) -> Ended:
        return penstock(*args, stdin=stdin, cwd=self.here, **{**self.environment, **env})

    def running(self, *args: str | Path) -> Running:
        return Running(*args, cwd=self.here, **self.environment)

    @property
    def environment(self) -> dict[str, str]:
        return {RUNS: str(self.store), "PENSTOCK_ALLOW_IMPORT": "./gate"}

    def four(self, text: str = FOUR) -> None:
        """Write the pipeline of four agents, and the gate in it."""
        self.write("four.yaml", text)
        self.write("gate.py", GATE)

    def write(self, name: str, text: str) -> Path:
        (self.here / name).write_text(text)
        return self.here / name

    @property
    def ids(self) -> list[str]:
        return sorted(path.name for path in self.store.iterdir() if path.name != ".key") if self.store.exists() else []

    @property
    def run(self) -> str:
        """The id of the only run."""
        (id,) = self.ids
        return id

    def ask(self, query: str, run: str | None = None) -> list[tuple[object, ...]]:
        """What a journal says, read as anybody could."""
        connection = sqlite3.connect(f"file:{self.store / (run or self.run) / 'journal.db'}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def listed(self, *flags: str) -> list[dict[str, object]]:
        return json.loads(self.penstock("runs", "list", "--json", *flags).out)

    def attempts(self, run: str | None = None) -> int:
        return int(str(self.ask("SELECT count(*) FROM attempt", run)[0][0]))


def lines(count: int, start: int = 1) -> str:
    return "".join(f"line {number}\n" for number in range(start, start + count))


def killed_at_its_pipe(place: Place, *args: str | Path) -> None:
    """Run the command, and kill it while it waits for more of its piped input, with the third record in the gate."""
    place.write("hold", "")
    with place.running("run", *args) as running:
        running.feed(lines(2) + "hang\n")
        running.until(" 3 admitted, 1 open")
        running.process.kill()
        running.wait()
    (place.here / "hold").unlink()


def killed(place: Place, *args: str | Path, admitted: int) -> None:
    """Run the command over an input that holds `hang`, and kill it when all else has ended; nothing holds it then."""
    place.write("hold", "")
    with place.running("run", *args) as running:
        running.hear("at most")
        running.until(f" {admitted} admitted, 1 open")
        running.process.kill()
        running.wait()
    (place.here / "hold").unlink()
