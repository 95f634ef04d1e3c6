"""What a stage costs an item: our engine, bare streams, bare queues and peers on the same work, measured in turns.

    python tests/benchmark/engine.py

Ratios are against the baseline, workers that `async for` and `await send` over anyio memory object streams of one item,
on the same backend. Above 1 is faster than that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from contestants import ASYNCIO_ONLY, BASELINE, BOTH, Contestant, penstock_plain, plain, stages_of
from environments import Peer, PeerAbsent, default_cache
from rounds import Timings, Turn, heading, save, table, take_turns

PEERS = (
    Peer("genai-processors", "genai-processors", "genai_peer.py"),
    Peer("LangChain", "langchain-core", "langchain_peer.py"),
    Peer("Haystack", "haystack-ai", "haystack_peer.py"),
)
FUNCTIONS = 10


@dataclass(frozen=True)
class Row:
    """One kind of work. `share` is how many of `--items` it takes, since a slow row needs fewer."""

    name: str
    stages: int
    sleeping: bool = False
    concurrency: int = 1
    share: float = 1.0

    def items(self, items: int) -> int:
        return max(1, int(items * self.share))


ROWS = (
    Row("1 stage that does nothing", 1),
    Row("3 stages that do nothing", 3),
    Row("6 stages that do nothing", 6, share=0.5),
    Row("3 stages, the middle one sleeps 1 ms, 16 at once", 3, sleeping=True, concurrency=16, share=0.5),
)
PEER_SHARE = 0.1  #: peers cost up to a hundred times as much an item, and a tenth of the items shows that well enough


def timed(backend: str, run: Callable[[], Awaitable[int]], items: int) -> float:
    async def measure() -> float:
        start = time.perf_counter()
        count = await run()
        seconds = time.perf_counter() - start
        if count != items:
            raise SystemExit(f"{count} of {items} results came out")
        return seconds

    return anyio.run(measure, backend=backend)


def turns(backend: str, rows: Sequence[Row], items: int) -> list[Turn]:
    made: list[Turn] = []
    everyone: dict[str, Contestant] = BOTH | (ASYNCIO_ONLY if backend == "asyncio" else {})
    for row in rows:
        for name, contestant in everyone.items():
            count = row.items(items)
            run = partial(contestant, stages_of(row.stages, row.sleeping), count, row.concurrency)
            made.append((row.name, name, partial(timed, backend, run, count)))
    for functions in (1, FUNCTIONS):
        run = partial(penstock_plain, functions, items)
        made.append(("plain", str(functions), partial(timed, backend, run, items)))
    made.append(("plain", "call", partial(called, items)))
    return made


def called(items: int) -> float:
    """Seconds of `FUNCTIONS - 1` plain calls an item in a loop, nothing around them."""
    functions = [plain] * (FUNCTIONS - 1)
    start = time.perf_counter()
    for value in range(items):
        for function in functions:
            value = function(value)
    return time.perf_counter() - start


def peers_round(rows: Sequence[Row], items: int, cache: Path, timings: Timings) -> None:
    """Let every peer measure all rows once, on as many items as suits it; seconds are scaled to the row's items."""
    work = [{**asdict(row), "items": max(1, int(row.items(items) * PEER_SHARE))} for row in rows]
    for peer in PEERS:
        if peer.name in timings.absent:
            continue
        try:
            result: Any = peer.run(cache, [json.dumps(work)])
        except PeerAbsent as error:
            timings.absent[peer.name] = str(error)
            continue
        for row, given in zip(rows, work, strict=True):
            seconds = result["seconds"][row.name] * row.items(items) / given["items"]
            timings.add(row.name, f"{peer.name} {result['version']}", seconds)


def report(backend: str, rows: Sequence[Row], items: int, timings: Timings) -> str:
    lines: list[Sequence[object]] = []
    for row in rows:
        count, baseline = row.items(items), timings.median(row.name, BASELINE)
        for name in timings.contestants(row.name):
            best, median = timings.best(row.name, name), timings.median(row.name, name)
            lines.append(
                (
                    f"{row.name}: {name}",
                    f"{count / median:,.0f}",
                    f"{median / count / row.stages * 1e6:.2f}",
                    f"{best / count / row.stages * 1e6:.2f}",
                    f"{baseline / median:.2f}",
                )
            )
        lines += [(f"{row.name}: {name} absent: {why}", "", "", "", "") for name, why in timings.absent.items()]
    text = table(("work", "items/s", "µs an item and stage", "best round", "ratio to the baseline"), lines)
    return f"### {backend}\n\n{text}\n\n{fused_line(items, timings)}\n"


def fused_line(items: int, timings: Timings) -> str:
    fused, call = fused_cost(items, timings), timings.best("plain", "call") / items / (FUNCTIONS - 1)
    return (
        f"A plain function in a row of plain functions: {fused * 1e6:.2f} µs an item "
        f"({FUNCTIONS} functions less 1, divided by {FUNCTIONS - 1}; the bare call is {call * 1e6:.2f} µs)."
    )


def fused_cost(items: int, timings: Timings) -> float:
    return (timings.best("plain", str(FUNCTIONS)) - timings.best("plain", "1")) / items / (FUNCTIONS - 1)


def main() -> None:
    options = arguments()
    backends = ("asyncio", "trio") if options.backend == "both" else (options.backend,)
    rows = [row for row in ROWS if options.rows in row.name]
    print(heading("What a stage costs", "python " + " ".join(sys.argv)))
    saved: dict[str, object] = {}
    for backend in backends:
        timings = Timings()
        mine = turns(backend, rows, options.items)
        take_turns(0, turns(backend, rows, max(1, options.items // 20)), Timings())  # warm, not counted
        for number in range(options.rounds):
            take_turns(number, mine, timings)
            if options.peers and backend == "asyncio":
                peers_round(rows, options.items, options.cache, timings)
        print(report(backend, rows, options.items, timings), flush=True)
        saved[backend] = [
            {"row": row, "contestant": name, "seconds": seconds} for (row, name), seconds in timings.seconds.items()
        ]
    save(options.json, {"items": options.items, "rows": [asdict(row) for row in rows], "seconds": saved})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("asyncio", "trio", "both"), default="both")
    parser.add_argument("--items", type=int, default=20_000, help="a round of the cheap rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where peers' environments are kept")
    parser.add_argument("--json", type=Path, help="write the seconds of every round here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
