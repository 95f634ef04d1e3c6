"""Kills the installed command at random instants until its run is done, and counts what that cost.

    python -m tests.durability.kill --prompts 2000 --kills 100

A run of two agents over distinct prompts asks `penstock sim` in a process of its own. It is killed by SIGKILL, gone on
with by `penstock resume`, killed again, and left alone when it was killed often enough. Then the output must have one
line for each prompt, the journal must prove itself (`penstock verify`), and the server's ledger must have as many
requests too many as the resumes said were in flight; what is said again after a life that asked for nothing counts
once. A request is noted a moment before its first byte leaves, so one that was killed in that moment is in the number
and not in the ledger: at each kill the number may be larger, never smaller.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

COMMAND = (str(Path(sys.executable).with_name("penstock")),)

PIPELINE = """\
version: 1
models: {{m: {{use: vllm/any, base_url: "{url}", attempts: 4}}}}
stages:
  - {{agent: draft, model: m, prompt: "Draft: {{{{ prompt }}}}", concurrency: 16}}
  - {{agent: polish, model: m, prompt: "Polish: {{{{ draft }}}}", concurrency: 16}}
"""

IN_FLIGHT = re.compile(r"(\d[\d,]*) calls? (?:was|were) in flight")


@dataclass
class Told:
    """What the lives of the run came to."""

    kills: int = 0
    early: int = 0  #: lives that were killed before they asked for anything
    printed: int = 0
    seconds: float = 0.0


@contextmanager
def simulator(latency: str, seed: int) -> Iterator[str]:
    """The base URL of a simulator in a process of its own."""
    words = (*COMMAND, "sim", "--port", "0", "--latency", latency, "--seed", str(seed), "-q")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def ledger(url: str) -> dict[str, int]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/ledger") as answer:
        return json.load(answer)


def life(words: Sequence[str], place: Path, seconds: float | None) -> tuple[int | None, str]:
    """Let the command run, for `seconds` at most; its exit code, None if it was killed, and what it said."""
    with (place / "said").open("w+") as said:
        process = subprocess.Popen((*COMMAND, *words), cwd=place, stdin=subprocess.DEVNULL, stderr=said)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
        said.seek(0)
        return code, said.read()


def started(url: str, place: Path) -> float:
    """Seconds from the start of the command to its first request."""
    began = time.monotonic()
    words = ("run", "p.yaml", "--no-store", "prompts.txt", "-n", "1", "-q")
    with subprocess.Popen(
        (*COMMAND, *words), cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        while not ledger(url)["started"]:
            time.sleep(0.02)
        took = time.monotonic() - began
        process.wait()
    urllib.request.urlopen(urllib.request.Request(url.removesuffix("/v1") + "/ledger", method="POST")).close()
    return took


def kill_until_done(url: str, place: Path, prompts: int, kills: int, chance: random.Random, backend: str) -> Told:
    (place / "p.yaml").write_text(PIPELINE.format(url=url))
    (place / "prompts.txt").write_text("".join(f"prompt number {number}\n" for number in range(prompts)))
    told, began, again = Told(), time.monotonic(), False
    untold = True  #: something was asked since a life has told last
    first = ("run", "p.yaml", "prompts.txt", "-o", "out.jsonl", "--run-dir", "run", "--backend", backend)
    start = started(url, place)
    print(f"from the command's start to its first request: {start:.2f} s")
    while True:
        words = ("resume", "run") if again else first
        limit = chance.uniform(start * 0.5, start + 1.5) if told.kills < kills else None
        asked = ledger(url)["started"]
        code, said = life(words, place, limit)
        found = IN_FLIGHT.search(said)
        printed = int(found[1].replace(",", "")) if found else 0
        told.printed += printed if untold else 0
        untold = untold and not printed
        if code is not None:
            assert code == 0, f"exit {code}:\n{said}"
            told.seconds = time.monotonic() - began
            return told
        told.kills += 1
        again = again or (place / "run" / "journal.db").exists()
        if ledger(url)["started"] > asked:
            untold = True
        else:
            told.early += 1


def judge(url: str, place: Path, prompts: int, told: Told) -> list[str]:
    """What is wrong at the end."""
    lines = [json.loads(line) for line in (place / "out.jsonl").read_bytes().splitlines()]
    ids = Counter(line["id"] for line in lines)
    seen = Counter(line["input"]["prompt"] for line in lines)
    wrong = [f"{len(lines)} lines for {prompts} prompts"] if len(lines) != prompts else []
    wrong += [f"{count} lines of {id}" for id, count in ids.items() if count > 1]
    wrong += [f"no line for prompt {n}" for n in range(prompts) if f"prompt number {n}" not in seen]
    wrong += [f"{line['id']}: {line['status']}" for line in lines if line["status"] != "ok"]
    code, said = life(("verify", "run"), place, None)
    wrong += [f"verify: exit {code}: {said}"] if code != 0 else []
    repeated = ledger(url)["started"] - 2 * prompts
    print(f"{told.kills} kills in {told.seconds:.0f} s, {told.early} of them before the first request of their life")
    print(f"{len(lines)} lines, {len(ids)} ids, {len(seen)} prompts")
    print(f"repeated calls: {repeated} in the ledger of the server, {told.printed} printed")
    if repeated > told.printed:
        wrong.append("more calls were repeated than were printed")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--latency", default="0.3s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory, simulator(given.latency, given.seed) as url:
        place = Path(directory)
        told = kill_until_done(url, place, given.prompts, given.kills, random.Random(given.seed), given.backend)
        wrong = judge(url, place, given.prompts, told)
    for text in wrong[:20]:
        print(f"wrong: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
