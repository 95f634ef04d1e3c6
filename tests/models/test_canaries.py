"""Keys stand in nothing that a run leaves or says, however a server quotes them: records, events, errors, logs, caches.

Two canaries are planted: the key in its variable, and a secret header, which is filled from another one.
"""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pipeline import Event, Pipeline, RunStopped, Visit
from stages import agent, map, resolve
from tests.cli.command import penstock
from tests.servers.echoing import PLACES, echoing_server

KEY = "sk-canary-KEY-5f0c2a71d3"
TOKEN = "canary-TOKEN-9be4417c02"
ENDS = (KEY[-6:], TOKEN[-6:])  # what is left when a server or we cut a text short


#: at DEBUG the SDK and the HTTP library log the head of an answer as it came, so what a server quotes there stands in
#: their logs; what we send does not
LINES = ("request-id", "retry-after", "rate-header", "redirect", "header-line", "not-http")
#: quoted where nothing of it is ever shown
UNSAID = ("retry-after", "rate-header", "redirect", "html", "cut", "list", "wrong-type", "stream-cut", "error-text")
IN_THE_HEAD = (*LINES, "content", "refusal", "finish", "wrong-type", "tool-call")


def leaked(text: str) -> list[str]:
    return [secret for secret in (KEY, TOKEN, *ENDS) if secret in text]


def contents(directory: Path) -> str:
    return "".join(path.read_bytes().decode("latin-1") for path in directory.rglob("*") if path.is_file())


def look(word: str) -> str:
    """Look a word up."""
    return word


def keeping(kept: list[object]) -> Callable[[object, Visit], object]:
    def keep(value: object, visit: Visit) -> object:
        kept.append(visit.item.state)
        return value

    return keep


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
    rounds = {"tools": [look], "max_hops": 2} if "tool" in place else {}
    asks = agent("ask", model=model, stream=stream, prompt="quote me in {{ prompt }}", **rounds)
    kept: list[object] = []
    pipe = Pipeline(asks | map(keeping(kept), name="keep"))
    events: list[Event] = []
    try:
        async with pipe.open([place], on_event=events.append) as run:
            async for record in run.results:
                cause = record.error.cause if record.error else None
                seen += [record, *(traceback.format_exception(cause) if cause else ())]
            seen += [*kept, run.statistics(), str(run.statistics()), run.wait_chain(), run, run.opened(model)]
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
    unread = place in UNSAID or (place.startswith("stream") and not stream)
    assert "[key]" in seen or unread  # what was quoted came through, but for the key


@pytest.mark.parametrize("place", PLACES)
def test_the_server_really_quotes_them(place: str) -> None:
    quoted = PLACES[place](KEY)
    assert KEY.encode() in quoted or (KEY[:5].encode() in quoted and KEY[-5:].encode() in quoted)


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


ENDINGS = ("status-401", "status-403", "redirect")  #: these end a run
OUTAGES = ("status-500", "status-503", "header-line", "not-http")  #: these make it wait for the endpoint


async def test_the_command_shows_and_keeps_no_key(tmp_path: Path) -> None:
    async with echoing_server() as base_url:
        text = FILE.replace("BASE", f'"{base_url}"').replace("CACHE", json.dumps(str(tmp_path / "calls.sqlite")))
        (tmp_path / "quoting.yaml").write_text(text)
        places = [place for place in PLACES if place not in (*ENDINGS, *OUTAGES)]
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
