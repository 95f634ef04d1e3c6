"""The same pipeline against an OpenAI-compatible server that is not ours: the LiteLLM proxy with mock answers, offline.

    python -m tests.foreign.check

Makes a virtual environment for the proxy when there is none (`litellm[proxy]`, about a minute), starts it on a free
port, and runs one pipeline through it on asyncio and on trio, plain and streaming: the text, the usage, and what the
record says of refusals, failures, a context that is too long, an unknown model and a wrong key. Prints a line a case
and exits with 1 if one is not as it should be. Not part of the test suite, because it installs somebody else's server.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from pipeline import Event, Pipeline, Record, RunStopped
from pipeline.core.events import TextStreamed
from stages import agent, resolve
from tests.benchmark.environments import Peer, default_cache

HERE = Path(__file__).parent
ANSWER = "The gate is open and the wheel turns."
KEY = "sk-foreign-canary-0123456789"
START_SECONDS = 90.0


@dataclass(frozen=True)
class Case:
    """What is asked, and what the record says then."""

    model: str
    status: str
    type: str | None = None
    http_status: int | None = None
    requests: int = 1
    key: str = KEY


CASES = (
    Case("answers", "ok"),
    Case("refuses", "failed", "rate_limited", 429, requests=2),
    Case("breaks", "failed", "server_error", 500, requests=2),
    Case("toolong", "failed", "bad_request", 400),
    Case("unknown", "failed", "bad_request", 400),
    Case("answers", "failed", "bad_request", 400, key="sk-wrong-canary-9876543210"),  # the proxy says 400 without a db
)


@contextmanager
def proxy(python: Path) -> Iterator[str]:
    """Start the proxy; gives its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python.parent / "litellm"), "--config", str(HERE / "litellm.yaml"), "--host", "127.0.0.1"]
    quiet = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=quiet
    ) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/health/liveliness")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _wait_for(url: str) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"the proxy did not start within {START_SECONDS:g} s")


def ask(base_url: str, case: Case, backend: str, stream: bool) -> tuple[Record, str]:
    """Run one prompt; return its record and the text that was streamed."""
    os.environ["FOREIGN_KEY"] = case.key
    model = resolve(f"vllm/{case.model}", base_url=base_url, api_key_env="FOREIGN_KEY", attempts=2)
    pipe = Pipeline(agent("ask", model=model, **({"stream": True} if stream else {})))
    pieces: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, TextStreamed):
            pieces.append(event.text)

    async def run() -> list[Record]:
        records: list[Record] = []
        try:
            async with pipe.open(["Is the gate open?"], on_event=hear) as going:
                records += [record async for record in going.results]
        except RunStopped:
            pass  # the record says why
        return records

    (record,) = anyio.run(run, backend=backend)
    return record, "".join(pieces)


def complaints(case: Case, record: Record, streamed: str, stream: bool) -> list[str]:
    """Return what is not as it should be."""
    error = record.error
    found = [
        ("status", record.status, case.status),
        ("output", record.output, ANSWER if case.status == "ok" else None),
        ("type", error and error.type, case.type),
        ("http_status", error and error.http_status, case.http_status),
        ("requests", record.usage.requests, case.requests),
        ("streamed", streamed, ANSWER if stream and case.status == "ok" else ""),
        ("tokens", record.usage.input_tokens > 0 and record.usage.output_tokens > 0, case.status == "ok"),
        ("estimated", record.usage.estimated, False),
        ("key shown", case.key in repr(record), False),
    ]
    return [f"{what}: {got!r}, not {right!r}" for what, got, right in found if got != right]


def main() -> int:
    arguments = argparse.ArgumentParser(description="Runs a pipeline against the LiteLLM proxy.")
    arguments.add_argument("--python", type=Path, help="of an environment that has litellm[proxy] already")
    given = arguments.parse_args()
    python = given.python or Peer("litellm proxy", "litellm[proxy]", "").interpreter(default_cache())
    wrong = 0
    with proxy(python) as base_url:
        for case in CASES:
            for backend in ("asyncio", "trio"):
                for stream in (False, True):
                    record, streamed = ask(base_url, case, backend, stream)
                    bad = complaints(case, record, streamed, stream)
                    wrong += bool(bad)
                    how = "stream" if stream else "plain"
                    said = record.error.type if record.error else f"{record.usage.output_tokens} tokens"
                    verdict = "; ".join(bad) or "as it should be"
                    print(f"{case.model:8} {backend:8} {how:6} {record.status:6} {said}  {verdict}")
    print("all as it should be" if not wrong else f"{wrong} cases are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
