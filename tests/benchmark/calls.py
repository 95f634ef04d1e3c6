"""How fast model calls are and what they cost: a pipeline of one agent, bare clients and LLM libraries in turns.

    python tests/benchmark/calls.py

Everyone asks the same server on loopback, which runs in a process of its own and answers each request after a second
(500 and 2,000 calls in flight, three waves) or at once (20 in flight). Each contestant is a process of its own, so that
CPU and peak memory are its own. Ratios are between median rounds. `--check` fails when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calling_contestants import CONTESTANTS
from environments import Peer, PeerAbsent, default_cache
from rounds import heading, save, table

HERE = Path(__file__).parent
SECONDS = 300.0  #: after which a contestant is given up
SPARE = 200  #: descriptors beside those of connections

PEERS = (
    Peer("LangChain", "langchain-openai", "langchain_calls.py"),
    Peer("LiteLLM", "litellm", "litellm_calls.py"),
    Peer("pydantic-ai", "pydantic-ai-slim[openai]", "pydantic_ai_calls.py"),
    Peer("curator", "bespokelabs-curator", "curator_calls.py"),
)


@dataclass(frozen=True)
class Row:
    """One kind of load."""

    name: str
    latency: float
    in_flight: int
    calls: int


ROWS = (
    Row("500 in flight, 1 s", 1.0, 500, 1_500),
    Row("2000 in flight, 1 s", 1.0, 2_000, 6_000),
    Row("20 in flight, at once", 0.0, 20, 3_000),
)

FAST, PLAIN, ON_TRIO = "Penstock, fast", "Penstock", "Penstock on trio"
BARE, SDK, SDK_ON_TRIO = "bare aiohttp", "SDK default", "SDK default on trio"

#: (row, contestant, against, at least so many times as fast)
GOALS = (
    (ROWS[0], FAST, BARE, 0.85),
    (ROWS[1], FAST, BARE, 0.6),
    (ROWS[2], FAST, SDK, 1.5),
    (ROWS[0], PLAIN, SDK, 1.3),
    (ROWS[0], ON_TRIO, SDK_ON_TRIO, 1.3),
    (ROWS[1], PLAIN, SDK, 1.8),
    (ROWS[1], ON_TRIO, SDK_ON_TRIO, 1.8),
    (ROWS[2], PLAIN, SDK, 1.0),
    (ROWS[2], ON_TRIO, SDK_ON_TRIO, 1.0),
)


@dataclass
class Measured:
    """What one contestant did in one row, round by round."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  #: milliseconds a call
    peak: list[float] = field(default_factory=list)  #: MiB
    in_flight: list[int] = field(default_factory=list)  #: as the server saw it
    unanswered: int = 0

    def add(self, result: dict[str, Any], row: Row, most: int) -> None:
        answered = result["answered"]
        self.unanswered += row.calls - answered
        self.rates.append(answered / result["seconds"])
        self.cpu.append(result["cpu"] * 1000 / max(1, answered))
        self.peak.append(result["peak_mib"])
        self.in_flight.append(most)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


class Server:
    """The server's process, as long as the block lasts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.base_url = f"http://127.0.0.1:{int(self._out.readline())}/v1"

    def seen(self) -> tuple[int, int, int, int]:
        """Answered, most in flight, connections, left early; since the last time this was asked."""
        self._in.write("\n")
        self._in.flush()
        answered, most, taken, left = map(int, self._out.readline().split())
        return answered, most, taken, left


@contextmanager
def server(latency: float) -> Generator[Server]:
    command = [sys.executable, str(HERE / "quick_server.py"), str(latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.terminate()


def own(name: str, given: str) -> dict[str, Any]:
    """Let one of our contestants run. Raises `PeerAbsent`."""
    command = [sys.executable, str(HERE / "calling_contestants.py"), name, given]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise PeerAbsent(f"not done after {SECONDS:g} s") from None
    if done.returncode:
        raise PeerAbsent((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout)


def descriptors(wanted: int) -> str:
    """Raise the limit of open files for the processes to come, and say what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    enough = "" if soft == resource.RLIM_INFINITY or soft >= wanted else f", which is less than the {wanted} wanted"
    return f"{'no' if soft == resource.RLIM_INFINITY else soft} limit of open files{enough}"


class Comparison:
    """All rounds of the rows that were asked for."""

    def __init__(self, rows: Sequence[Row], names: Sequence[str], peers: Sequence[Peer], cache: Path) -> None:
        self.rows = rows
        self.names = names
        self.peers = peers
        self.cache = cache
        self.measured: dict[tuple[str, str], Measured] = {}
        self.absent: dict[str, str] = {}

    def round(self, number: int) -> None:
        """Let everyone have a turn; every other round goes backwards."""
        for row in self.rows:
            with server(row.latency) as served:
                everyone: list[str | Peer] = [*self.names, *self.peers]
                for each in everyone if number % 2 == 0 else reversed(everyone):
                    self._turn(row, each, served)

    def _turn(self, row: Row, each: str | Peer, served: Server) -> None:
        name = each if isinstance(each, str) else each.name
        if name in self.absent or f"{name}: {row.name}" in self.absent:
            return
        given = json.dumps({"base_url": served.base_url, "in_flight": row.in_flight, "calls": row.calls})
        print(f"{row.name}: {name}", file=sys.stderr, flush=True)
        try:
            served.seen()
            result = own(each, given) if isinstance(each, str) else each.run(self.cache, [given])
        except PeerAbsent as error:
            self.absent[f"{name}: {row.name}" if (self.rows[0].name, name) in self.measured else name] = str(error)
            return
        self.measured.setdefault((row.name, name), Measured()).add(result, row, served.seen()[1])

    def report(self) -> str:
        header = (
            "calls",
            "calls/s",
            "to bare aiohttp",
            "to SDK default",
            "CPU ms a call",
            "peak MiB",
            "most in flight",
        )
        lines: list[Sequence[object]] = []
        for row in self.rows:
            for name in (*self.names, *(peer.name for peer in self.peers)):
                found = self.measured.get((row.name, name))
                if found is None:
                    continue
                lost = f" ({found.unanswered} unanswered)" if found.unanswered else ""
                line = (f"{found.rate:,.0f}", self._ratio(row, name, BARE), self._ratio(row, name, SDK))
                costs = (f"{statistics.median(found.cpu):.2f}", f"{max(found.peak):.0f}", max(found.in_flight))
                lines.append((f"{row.name}: {name}{lost}", *line, *costs))
        lines += [(f"{name}: absent: {why}", *[""] * 6) for name, why in self.absent.items()]
        return table(header, lines)

    def _ratio(self, row: Row, name: str, other: str) -> str:
        found, against = self.measured.get((row.name, name)), self.measured.get((row.name, other))
        return f"{found.rate / against.rate:.2f}" if found and against else ""

    def goals(self) -> list[tuple[str, bool]]:
        """Each goal that could be judged, in words, and whether it was reached."""
        said: list[tuple[str, bool]] = []
        for row, name, other, least in GOALS:
            ratio = self._ratio(row, name, other)
            if ratio:
                reached = float(ratio) >= least
                said.append((f"{row.name}: {name} is {ratio} times as fast as {other}, goal {least:g}", reached))
        for row in self.rows:
            for name in (FAST, PLAIN, ON_TRIO):
                said += self._costs(row, name)
        most = self.measured.get((ROWS[1].name, FAST))
        if most is not None:
            peaks = sorted(most.in_flight)
            words = f"{ROWS[1].name}: at least {peaks[0]} and at most {peaks[-1]} were in flight at once, by rounds"
            said.append((f"{words}, goal {ROWS[1].in_flight} in each", peaks[0] >= ROWS[1].in_flight))
        return said

    def _costs(self, row: Row, name: str) -> list[tuple[str, bool]]:
        found = self.measured.get((row.name, name))
        peers = [self.measured[row.name, peer.name] for peer in self.peers if (row.name, peer.name) in self.measured]
        if found is None or not peers:
            return []
        cpu, least = statistics.median(found.cpu), min(statistics.median(peer.cpu) for peer in peers)
        peak, lightest = max(found.peak), min(max(peer.peak) for peer in peers)
        return [
            (f"{row.name}: {name} takes {cpu:.2f} ms of CPU a call, the best library {least:.2f}", cpu < least),
            (f"{row.name}: {name} takes {peak:.0f} MiB, the lightest library {lightest:.0f}", peak < lightest),
        ]


def main() -> None:
    options = arguments()
    rows = [row for row in ROWS if options.rows in row.name]
    limit = descriptors(max(row.in_flight for row in rows) + SPARE)
    names = [name for name in CONTESTANTS if not options.only or name in options.only]
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only] if options.peers else []
    print(heading("What a model call costs", "python " + " ".join(sys.argv)))
    print(limit + "\n")
    comparison = Comparison(rows, names, peers, options.cache)
    for number in range(options.rounds):
        comparison.round(number)
    print(comparison.report() + "\n")
    goals = comparison.goals()
    for words, reached in goals:
        print(f"- {'reached' if reached else 'MISSED'}: {words}")
    measured = [{"row": row, "name": name, **vars(found)} for (row, name), found in comparison.measured.items()]
    save(options.json, {"measured": measured, "absent": comparison.absent})
    if options.check and not all(reached for _, reached in goals):
        raise SystemExit(1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--only", action="append", help="only this contestant; may be given more than once")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where peers' environments are kept")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--json", type=Path, help="write the numbers of every round here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
