"""Keys stand in nothing that a run leaves or says, however a server quotes them: records, events, errors, logs, caches.

Two canaries are planted: the key in its variable, and a secret header, which is filled from another one.
"""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path

import anyio
import pytest

from pipeline import Event, Pipeline, RunStopped
from stages import agent, resolve
from tests.cli.command import penstock
from tests.servers.echoing import PLACES, echoing_server

KEY = "sk-canary-KEY-5f0c2a71d3"
TOKEN = "canary-TOKEN-9be4417c02"
ENDS = (KEY[-6:], TOKEN[-6:])  # what is left when a server or we cut a text short


#: at DEBUG the SDK and the HTTP library log the head of an answer as it came, so what a server quotes there stands in
#: their logs; what we send does not
LINES = ("request-id", "retry-after", "rate-header", "redirect", "header-line", "not-http")
IN_THE_HEAD = (*LINES, "content", "refusal", "finish", "wrong-type", "tool-call")


def leaked(text: str) -> list[str]:
    return [secret for secret in (KEY, TOKEN, *ENDS) if secret in text]


def contents(directory: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in directory.rglob("*") if path.is_file())


async def ask(base_url: str, place: str, stream: bool, cache: Path) -> str:
    """Run one prompt and return everything that can be seen of the run."""
    model = resolve(
        "vllm/m",
        base_url=base_url,
        api_key_env="CANARY_KEY",
        headers={"X-Api-Token": TOKEN},
        attempts=2,
        cache=str(cache),
    )
    seen: list[object] = [model, str(model)]
    pipe = Pipeline(agent("ask", model=model, stream=stream, prompt="quote me in {{ prompt }}"))
    events: list[Event] = []
    try:
        async with pipe.open([place], on_event=events.append) as run:
            async for record in run.results:
                cause = record.error.cause if record.error else None
                seen += [record, *(traceback.format_exception(cause) if cause else ())]
            seen += [run.statistics(), str(run.statistics()), run.wait_chain(), run, run.opened(model)]
    except RunStopped as error:
        seen += [error, str(error), *traceback.format_exception(error)]
    return "\n".join(str(each) + repr(each) for each in (*seen, *events, events))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("place", PLACES)
async def test_no_place_of_an_answer_carries_a_key_into_anything_of_ours(
    place: str, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CANARY_KEY", KEY)
    caplog.set_level(logging.INFO if place in IN_THE_HEAD else logging.DEBUG)
    async with echoing_server() as base_url:
        seen = await ask(base_url, place, stream, tmp_path / "calls.sqlite")
    kept = contents(tmp_path)
    assert (leaked(seen), leaked(caplog.text), leaked(kept)) == ([], [], [])
    assert "quote me in" in seen or "ask" in seen  # something was seen at all


async def test_the_server_really_quotes_them() -> None:
    assert all(KEY.encode() in quote(KEY) or b"HALF" not in quote(KEY) for quote in PLACES.values())
    assert KEY.encode() in PLACES["content"](KEY)


FILE = """\
version: 1
models:
  quoting:
    use: vllm/m
    base_url: BASE
    api_key_env: CANARY_KEY
    headers: {X-Api-Token: "${CANARY_TOKEN}"}
    attempts: 2
    cache: CACHE
stages:
  - agent: ask
    prompt: "quote me in {{ prompt }}"
"""


async def test_the_command_shows_and_keeps_no_key(tmp_path: Path) -> None:
    async with echoing_server() as base_url:
        text = FILE.replace("BASE", f'"{base_url}"').replace("CACHE", json.dumps(str(tmp_path / "calls.sqlite")))
        (tmp_path / "quoting.yaml").write_text(text)
        places = [place for place in PLACES if place not in ("status-401", "status-403", "redirect")]
        (tmp_path / "prompts.txt").write_text("\n".join(places))

        def run(*more: str) -> str:
            files = (tmp_path / "quoting.yaml", tmp_path / "prompts.txt")
            done = penstock("run", *files, *more, CANARY_KEY=KEY, CANARY_TOKEN=TOKEN)
            return done.err + done.out.decode()

        said = await anyio.to_thread.run_sync(run, "-v")
        said += await anyio.to_thread.run_sync(run, "-o", str(tmp_path / "out.jsonl"))
    kept = contents(tmp_path)
    assert (leaked(said), leaked(kept)) == ([], [])
    assert said.count('"status":"failed"') > len(places) // 2
    assert "[key]" in said
