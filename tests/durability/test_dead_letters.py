"""Every record that failed, in full and once: why, where, what was tried, what it cost, and the record itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from pipeline.core.dead_letter import dead_letter, places
from pipeline.core.errors import Failure, SinkError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.usage import Cost, Usage
from pipeline.durability.disk.store import Store
from pipeline.durability.journal import FILE, Journal
from pipeline.durability.outputs.letters import Place, Tried, attempts
from pipeline.durability.outputs.output import Output
from stages import agent, flat_map, map
from stages.models import resolve
from stages.sinks import DeadLetters, JsonlSink

BACKENDS = ("asyncio", "trio")
CANARY = "sk-canary0123456789abcdef"
BROKEN = resolve("sim/default", latency=0, errors={"400": 1.0})


def strict(value: object) -> object:
    key = CANARY
    if "bad" in str(value) and key:
        try:
            raise KeyError(key)
        except KeyError as error:
            raise ValueError("not good") from error
    return value


CHECK = Pipeline(map(strict, name="check"), ordered=True)


def on(backend: str, body: Callable[[], Awaitable[object]]) -> None:
    anyio.run(body, backend=backend)


def letters(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_letter_is_the_long_form_of_a_record(backend: str, tmp_path: Path) -> None:
    records = [{"id": "a", "prompt": "good"}, {"id": "b", "prompt": "bad", "more": [1]}]
    on(backend, lambda: CHECK.run(records, journal=Journal(tmp_path, output=tmp_path / "out")))
    (letter,) = letters(tmp_path / "errors.jsonl")
    where = letter.pop("traceback")
    assert letter == {
        "seq": 2,
        "id": "b",
        "index": 1,
        "reason": "ValueError",
        "stage": "check",
        "http_status": None,
        "request_id": None,
        "message": "not good",
        "attempts": [],
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "cached_input_tokens": 0,
            "reasoning_tokens": 0,
            "requests": 0,
        },
        "cost": None,
        "record": {"id": "b", "prompt": "bad", "more": [1]},
        "outputs": {},
    }
    assert [each["type"] for each in where] == ["ValueError", "KeyError"]
    assert [each["at"][0].split(" in ")[1] for each in where] == ["strict", "strict"]
    assert all(each["at"][0].startswith(__file__) for each in where)
    (line,) = [line for line in (tmp_path / "out").read_bytes().splitlines() if b'"failed"' in line]
    assert json.loads(line)["error"]["message"] == "not good", "the output has it too"


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_tried_is_in_it_with_its_usage_and_cost(backend: str, tmp_path: Path) -> None:
    pipe = Pipeline(agent("first", model=resolve("sim/default", latency=0)) | agent("say", model=BROKEN))

    async def body() -> None:
        await pipe.collect(["x"], journal=Journal(tmp_path))

    on(backend, body)
    (letter,) = letters(tmp_path / "errors.jsonl")
    first, *others = letter["attempts"]
    assert (first["path"], first["state"], first["number"], first["run"]) == (["first"], "ok", 1, 1)
    assert first["usage"]["output_tokens"] > 0
    assert others
    assert {tuple(each["path"]) for each in others} == {("say",)}
    assert [each["number"] for each in others] == list(range(1, len(others) + 1))
    assert "ok" not in {each["state"] for each in others}
    assert (letter["stage"], letter["record"], set(letter["outputs"])) == ("say", "x", {"first"})
    assert letter["usage"]["requests"] == 1 + len(others)
    assert letter["traceback"] is None, "no code of the user's was at work"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_child_has_what_was_tried_for_it_and_before_it(backend: str, tmp_path: Path) -> None:
    def two(value: object) -> list[object]:
        return [f"{value} 1", f"{value} 2"]

    pipe = Pipeline(
        agent("first", model=resolve("sim/default", latency=0))
        | flat_map(two, name="split")
        | agent("say", model=BROKEN),
        ordered=True,
    )
    on(backend, lambda: pipe.collect(["x"], journal=Journal(tmp_path)))
    found = letters(tmp_path / "errors.jsonl")
    assert [letter["id"].rpartition("#")[2] for letter in found] == ["0", "1"]
    for slot, letter in enumerate(found):
        paths = {tuple(each["path"]) for each in letter["attempts"]}
        assert paths == {("first",), ("split", str(slot), "say")}
        assert letter["parent"] == letter["id"].rpartition("#")[0]
    with Store.looking(tmp_path / FILE) as store:
        assert {tuple(each["path"]) for each in attempts(store, Place(1, "", ()), Tried())} == {  # type: ignore[arg-type]
            ("first",), ("split", "0", "say"), ("split", "1", "say")
        }  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_is_there_once_over_resumes_and_made_up_if_it_was_torn(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"

    async def body() -> None:
        await CHECK.collect(["bad 1", "good"], journal=Journal(tmp_path))
        with path.open("ab") as file:
            file.write(bytes(4))  # as a loss of power can leave it
        await CHECK.collect(["bad 1", "good", "bad 2"], journal=Journal(tmp_path))
        await CHECK.collect(["bad 1", "good", "bad 2"], journal=Journal(tmp_path))

    on(backend, body)
    assert [letter["record"] for letter in letters(path)] == ["bad 1", "bad 2"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_they_can_be_kept_elsewhere(backend: str, tmp_path: Path) -> None:
    there = tmp_path / "dead {status}.jsonl"

    async def body() -> None:
        await CHECK.collect(["bad"], journal=Journal(tmp_path / "run", errors=there))
        await CHECK.collect(["bad", "bad too"], journal=Journal(tmp_path / "run", errors=Output(there, "append")))
        with pytest.raises(SinkError, match="exists; add to it"):
            await CHECK.collect(["bad"], journal=Journal(tmp_path / "other", errors=there))

    on(backend, body)
    assert [letter["record"] for letter in letters(there)] == ["bad", "bad too"]
    assert not (tmp_path / "run" / "errors.jsonl").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_failures_there_is_no_file(backend: str, tmp_path: Path) -> None:
    on(backend, lambda: CHECK.collect(["good"], journal=Journal(tmp_path)))
    assert not (tmp_path / "errors.jsonl").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_journal_a_sink_keeps_them(backend: str, tmp_path: Path) -> None:
    pipe = Pipeline(map(strict, name="check") | agent("say", model=BROKEN), ordered=True)
    sink = DeadLetters(JsonlSink(str(tmp_path / "out")), str(tmp_path / "dead"))
    on(backend, lambda: pipe.run(["bad", "good"], sink))
    one, other = letters(tmp_path / "dead")
    assert (one["record"], one["reason"], one["attempts"]) == ("bad", "ValueError", None)
    assert "seq" not in one
    assert other["attempts"] == other["usage"]["requests"]
    assert len((tmp_path / "out").read_bytes().splitlines()) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_secret_value_is_in_anything_that_a_run_writes(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY_KEY", CANARY)
    model = resolve("openai/gpt-5.5", api_key_env="CANARY_KEY", base_url="http://127.0.0.1:9/v1")
    pipe = Pipeline(map(strict, name="check") | agent("say", model=model))
    on(backend, lambda: pipe.collect(["bad", "good"], journal=Journal(tmp_path, output=tmp_path / "out")))
    assert len(letters(tmp_path / "errors.jsonl")) == 2
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()] == []


def test_what_has_no_json_form_is_left_out() -> None:
    odd = Record("a", 0, "failed", None, {"x": object()}, None, Usage(), Cost(None, "nobody"), object(), inputs=("b",))
    letter = json.loads(dead_letter(odd, attempts=[{"number": 1}]))
    assert (letter["record"], letter["outputs"], letter["inputs"]) == (None, {}, ["b"])
    assert (letter["reason"], letter["cost"]) == (None, {"usd": None, "source": "nobody"})
    assert letter["attempts"] == [{"number": 1}]


def test_only_places_of_the_users_code_are_told() -> None:
    assert places(ValueError(CANARY)) is None
    found = places(_raised(lambda: json.loads("{")))
    assert found is not None
    (one,) = found
    assert one["type"] == "JSONDecodeError"
    assert [str(place).rpartition(" in ")[2] for place in cast("list[str]", one["at"])] == ["_raised", "<lambda>"]
    chain: BaseException = ValueError("first")
    for _ in range(20):
        try:
            raise ValueError from chain
        except ValueError as error:
            chain = error
    found = places(chain)
    assert found is not None
    assert len(found) == 8


def _raised(body: Callable[[], object]) -> BaseException:
    try:
        body()
    except Exception as error:
        return error
    raise AssertionError


def test_a_failure_without_an_attempt_count_has_none() -> None:
    failed = Record("a", 0, "failed", None, {}, Failure("Boom", None, "it broke"), Usage(), None, "p")
    letter: Mapping[str, object] = json.loads(dead_letter(failed))
    assert (letter["attempts"], letter["traceback"], letter["message"]) == (None, None, "it broke")
