"""How much of an account's limits is used, and how much is refused: over HTTP, against the simulated server.

    python tests/benchmark/quota.py --peers

The server (`penstock sim`, a process of its own) lets 1,200 requests and 600 k tokens a minute through, in a token
bucket that holds one second of that, and answers after 0.3 to 0.7 s. Everyone sends 1,500 calls of about 450 tokens,
one contestant after the other, each to a fresh server. What is used is (n - 1) / (rate x span): n requests were let in,
span is the time from the first to the last of them, both as the server's ledger says; of tokens likewise, as they were
charged. Lost are calls that the contestant gave up, late those that it had not answered after five minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import Peer, PeerAbsent, default_cache
from rounds import heading, save, table

HERE = Path(__file__).parent
LIMITS = {"requests_per_minute": 1_200, "tokens_per_minute": 600_000}
TOKENS = 380  #: of an answer; a prompt has about 70, so both limits are near and requests bind
START_SECONDS = 30.0


@dataclass(frozen=True)
class Contestant:
    """A script that sends the calls and prints `{"answered": ..., "lost": ..., "seconds": ...}`."""

    name: str
    script: str
    arguments: tuple[str, ...] = ()
    package: str | None = None  #: of a peer, in an environment of its own


OURS = (
    Contestant("penstock, asyncio", "penstock_quota.py", ("asyncio",)),
    Contestant("penstock, trio", "penstock_quota.py", ("trio",)),
)
PEERS = (
    Contestant("semaphore of 100, SDK retries", "semaphore_quota.py"),
    Contestant("OpenAI cookbook", "cookbook_quota.py"),
    Contestant("inspect_ai", "inspect_quota.py", package="inspect-ai openai"),
    Contestant("curator", "curator_quota.py", package="bespokelabs-curator"),
    Contestant("LiteLLM router", "litellm_quota.py", package="litellm"),
)


@contextmanager
def simulated_server(*flags: str) -> Generator[str]:
    """Run `penstock sim` on a free port until the block ends, and give its base URL."""
    command = [sys.executable, "-m", "pipeline.cli.main", "sim", "--port", "0", "--quiet", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1]) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            if not base_url:
                raise SystemExit("the simulated server did not start")
            yield base_url
        finally:
            process.terminate()


def flags_of(window: str, burst: str | None) -> list[str]:
    flags = ["--latency", "uniform:0.3s..0.7s", "--tokens", str(TOKENS), "--seed", "7", "--window", window]
    flags += ["--burst", burst] if burst else []
    for name, limit in LIMITS.items():
        flags += ["--" + name.replace("_", "-"), str(limit)]
    return flags


def measure(contestant: Contestant, options: argparse.Namespace) -> dict[str, Any]:
    """Let one contestant send its calls to a server of its own. Raises `PeerAbsent`."""
    work: dict[str, object] = {"calls": options.calls, **LIMITS}
    with simulated_server(*flags_of(options.window, options.burst)) as base_url:
        arguments = [*contestant.arguments, json.dumps({**work, "base_url": base_url})]
        began = time.perf_counter()
        if contestant.package:
            peer = Peer(contestant.name, contestant.package, contestant.script)
            result = peer.run(options.cache, arguments)
        else:
            result = here(contestant.script, arguments)
        seconds = time.perf_counter() - began
        with urllib.request.urlopen(base_url.removesuffix("/v1") + "/ledger") as answer:
            ledger: dict[str, Any] = json.load(answer)
    return {**result, "whole_seconds": seconds, "ledger": ledger, **used(ledger)}


def here(script: str, arguments: Sequence[str]) -> Any:
    """Run a script with the Python of this one. Raises `PeerAbsent`."""
    command = [sys.executable, str(HERE / "peers" / script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1], check=False)
    if done.returncode:
        raise PeerAbsent(f"{script} ended with {done.returncode}")
    return json.loads(done.stdout)


def used(ledger: dict[str, Any]) -> dict[str, float]:
    """What was used of each limit between the first request that was let in and the last."""
    span, admitted = ledger["span"], ledger["admitted"]
    if not span:
        return {"requests_used": 0.0, "tokens_used": 0.0}
    tokens = ledger["charged_tokens"] * (admitted - 1) / admitted
    return {
        "requests_used": (admitted - 1) / (LIMITS["requests_per_minute"] / 60 * span),
        "tokens_used": tokens / (LIMITS["tokens_per_minute"] / 60 * span),
    }


def row(name: str, result: dict[str, Any]) -> Sequence[object]:
    ledger = result["ledger"]
    return (
        f"{name} {result.get('version', '')}".strip(),
        f"{result['requests_used']:.2%}",
        f"{result['tokens_used']:.1%}",
        f"{ledger['refused']:,}",
        f"{result['lost']:,}" + (f" and {result['late']:,} late" if result.get("late") else ""),
        f"{ledger['started']:,}",
        f"{ledger['peak']:,}",
        f"{result['seconds']:.1f}",
    )


def main() -> None:
    options = arguments()
    contestants = [*OURS, *(PEERS if options.peers else ())]
    print(heading("How much of a quota is used", "python " + " ".join(sys.argv)))
    lines: list[Sequence[object]] = []
    saved: dict[str, object] = {}
    for contestant in contestants:
        if options.only not in contestant.name:
            continue
        try:
            result = measure(contestant, options)
        except PeerAbsent as error:
            lines.append((f"{contestant.name} absent: {error}", "", "", "", "", "", "", ""))
            continue
        saved[contestant.name] = result
        lines.append(row(contestant.name, result))
        print(f"{contestant.name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    header = ("contestant", "requests used", "tokens used", "refused", "lost", "sent", "peak in flight", "seconds")
    print(table(header, lines))
    save(options.json, {"limits": LIMITS, "calls": options.calls, "results": saved})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_500)
    parser.add_argument("--window", default="token_bucket", help="as penstock sim has it")
    parser.add_argument("--burst", default=None, help="of the token bucket (1s)")
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where peers' environments are kept")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    if options.burst is None and options.window == "token_bucket":
        options.burst = "1s"
    return options


if __name__ == "__main__":
    main()
