"""Records that failed are opened again without what made them fail: they keep the answers of what went well before."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from pipeline import Pipeline
from pipeline.durability.inspection.verify import verify
from pipeline.durability.journal import Journal
from pipeline.durability.resume.downstream import Downstream
from pipeline.durability.resume.failures import Failed
from pipeline.durability.resume.reopening import Reopen
from stages import agent, loop, map, parallel, quorum, scatter
from tests.durability.lives import asked, attempts, crashed, live, model, pipe
from tests.durability.test_reopening import Fussy, by_prompt
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = ["one", "two", "three"]
FAILED = Reopen(failed=True)
ONLY_FAILED = Reopen(only_failed=True)


class Plan(BaseModel):
    """What does not fit into five tokens."""

    questions: list[str]
    title: str


def asks(name: str, prompt: str = "{{ prompt }}") -> Any:
    return agent(name, model=model(), prompt=f"{name} {prompt}", max_output_tokens=100)


def cut(name: str, prompt: str = "{{ prompt }}") -> Any:
    """An agent whose answer is cut before its JSON ends."""
    return agent(name, model=model(model="default"), prompt=f"{name} {prompt}", output=Plan, max_output_tokens=5)


def out(path: Path) -> list[tuple[int, str]]:
    return [(line["index"], line["status"]) for line in map_lines(path)]


def map_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@both_backends
@pytest.mark.parametrize("reopen", [FAILED, ONLY_FAILED])
def test_an_answer_that_fits_no_schema_is_asked_for_again_and_those_before_it_are_not(
    backend: str, tmp_path: Path, reopen: Reopen
) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        pipeline = Pipeline(asks("a") | cut("b") | asks("c"))
        await live(pipeline, PROMPTS, journal)
        assert by_prompt(journal) == ["failed"] * 3
        assert attempts(journal, 1) == {"a": 3, "b": 3}
        await live(pipeline, PROMPTS, journal)
        assert attempts(journal, 2) == {}
        lived = await live(pipeline, PROMPTS, replace(journal, reopen=reopen))
        assert attempts(journal, 3) == {"b": 3}
        assert [record.error.type for record in lived.records if record.error] == ["truncated"] * 3

    run_in(backend, 0, body)


@both_backends
def test_of_members_those_that_failed_are_asked_again_though_the_join_was_content(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        function = Fussy("two")
        function.version = "2"
        both = parallel("both", x=cut("x"), y=asks("y"), join=quorum(1))
        pipeline = Pipeline(asks("a") | both | map("{{ prompt }}", name="p") | map(function, name="check", pure=True))
        journal = Journal(tmp_path / "run")
        await live(pipeline, PROMPTS, journal)
        assert by_prompt(journal) == ["partial", "failed", "partial"]
        function.refused.clear()
        await live(pipeline, PROMPTS, replace(journal, reopen=FAILED))
        assert attempts(journal, 2) == {"x": 1}
        assert by_prompt(journal) == ["partial"] * 3

    run_in(backend, 0, body)


@both_backends
def test_of_the_parts_of_a_record_the_one_that_failed_is_asked_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        function = Fussy("two")

        async def check(value: object) -> object:
            if str(value) in function.refused:
                await anyio.sleep(1)  # so that the others are done with what comes before
            return function(value)

        each = (
            asks("w", "{{ part }}")
            | map("{{ part }}", name="p")
            | map(check, name="check", concurrency=3, pure=True)
            | asks("z")
        )
        fan = scatter("dig", split=split, each=each)
        pipeline = Pipeline(fan | asks("end"))
        journal = Journal(tmp_path / "run")
        await live(pipeline, ["one two three"], journal)
        assert by_prompt(journal) == ["failed"]
        assert attempts(journal, 1) == {"w": 3, "z": 2}
        function.refused.clear()
        await live(pipeline, ["one two three"], replace(journal, reopen=FAILED))
        assert attempts(journal, 2) == {"z": 3, "end": 1}
        assert by_prompt(journal) == ["ok"]

    run_in(backend, 0, body)


def split(value: object) -> list[str]:
    return str(value).split()


def never(value: object) -> bool:
    return False


@both_backends
def test_of_a_loop_that_has_used_up_its_rounds_only_the_last_is_asked_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        tries = loop(asks("w", "{{ round }}"), until=never, max_rounds=3, name="l", on_exhausted="fail")
        pipeline = Pipeline(asks("a") | tries)
        await live(pipeline, ["one"], journal)
        assert by_prompt(journal) == ["failed"]
        assert attempts(journal, 1) == {"a": 1, "w": 3}
        await live(pipeline, ["one"], replace(journal, reopen=FAILED))
        assert attempts(journal, 2) == {"w": 1}

    run_in(backend, 0, body)


def test_what_a_failure_in_a_loop_spoils_is_what_comes_after_it() -> None:
    after = Downstream(frozenset({"critic", "l.until", "end"}), frozenset({"l"}), frozenset({"l"}))
    failed = Failed(("dig", "4", "l", "2", "critic"), after)
    spoiled = [
        ("dig", "4", "l", "2", "critic"),
        ("dig", "4", "l", "2", "l.until"),
        ("dig", "4", "l", "3", "writer"),
        ("dig", "4", "l"),
        ("end",),
    ]
    kept = [
        ("dig", "4", "l", "2", "writer"),
        ("dig", "4", "l", "1", "critic"),
        ("dig", "3", "l", "2", "critic"),
        ("dig", "5", "l", "3", "critic"),
        ("lead",),
    ]
    assert [failed.spoils(path, "call" if path[-1] != "l" else "join") for path in spoiled] == [True] * 5
    assert [failed.spoils(path, "call") for path in kept] == [False] * 5


@both_backends
@pytest.mark.parametrize("reopen", [FAILED, ONLY_FAILED])
def test_an_ordered_output_is_in_the_order_of_the_input_again(backend: str, tmp_path: Path, reopen: Reopen) -> None:
    async def body() -> None:
        prompts = ["one", "two", "three", "two more", "five"]
        function = Fussy("two", "two more")
        pipeline = Pipeline(asks("a") | map("{{ prompt }}", name="p") | map(function, name="m"), ordered=True)
        path = tmp_path / "out.jsonl"
        journal = Journal(tmp_path / "run", output=path)
        await live(pipeline, prompts, journal)
        assert out(path) == [(0, "ok"), (1, "failed"), (2, "ok"), (3, "failed"), (4, "ok")]
        function.refused = {"two more"}
        await live(pipeline, prompts, replace(journal, reopen=reopen))
        assert out(path) == [(0, "ok"), (1, "ok"), (2, "ok"), (3, "failed"), (4, "ok")]
        function.refused.clear()
        await live(pipeline, prompts, replace(journal, reopen=reopen))
        assert out(path) == [(index, "ok") for index in range(5)]
        assert attempts(journal, 2) == attempts(journal, 3) == {}
        assert verify(tmp_path / "run" / "journal.db", tmp_path / "run" / "errors.jsonl").problems == ()

    run_in(backend, 0, body)


@both_backends
def test_an_ordered_output_whose_reopening_was_cut_short_comes_to_its_order_too(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        prompts = ["one", "two", "three", "four"]
        function = Fussy("two")
        pipeline = Pipeline(
            asks("a") | map("{{ prompt }}", name="p") | map(function, name="m", pure=True) | asks("z"), ordered=True
        )
        journal = Journal(tmp_path / "run")
        await live(pipeline, prompts, journal)
        function.refused.clear()
        dead = await crashed(pipeline, prompts, replace(journal, reopen=FAILED), 2, tmp_path / "dead")
        await live(pipeline, prompts, dead)
        ended = asked(dead, "SELECT place, line.status FROM line JOIN root ON root = seq ORDER BY number")
        assert ended == [(0, "ok"), (1, "ok"), (2, "ok"), (3, "ok")]
        assert attempts(dead, 3) == {"z": 1}

    run_in(backend, 0, body)


@both_backends
def test_only_failed_leaves_what_was_opened_for_another_reason(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        from tests.durability.test_reopening import fussy

        function = Fussy("two")
        pipeline = fussy(function)
        first = Journal(tmp_path / "run")
        await live(pipeline, PROMPTS, first)
        again = replace(first, reopen=Reopen(from_stage="a"))
        dead = await crashed(pipeline, PROMPTS, again, 2, tmp_path / "dead")
        assert len(asked(dead, "SELECT root FROM fact WHERE kind = 'reopened'")) == 3
        assert (await live(pipeline, [], replace(dead, reopen=ONLY_FAILED))).records == []
        assert attempts(dead, 3) == {}
        await live(pipeline, PROMPTS, dead)
        assert attempts(dead, 4) == {"a": 3}
        assert asked(dead, "SELECT root FROM fact WHERE kind = 'reopened'") == []

    run_in(backend, 0, body)


@both_backends
def test_why_a_record_was_opened_is_forgotten_when_it_has_ended(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        refusing = pipe("{{ prompt }}", model=model(errors={"500": 1.0}, attempts=1))
        journal = Journal(tmp_path / "run")
        await live(refusing, PROMPTS, journal)
        dead = await crashed(refusing, [], replace(journal, reopen=ONLY_FAILED), 2, tmp_path / "dead")
        assert asked(dead, "SELECT CAST(value AS TEXT) FROM fact WHERE kind = 'reopened'") == [('"failed"',)] * 3
        await live(refusing, [], replace(dead, reopen=ONLY_FAILED))
        assert asked(dead, "SELECT root FROM fact WHERE kind = 'reopened'") == []
        assert verify(tmp_path / "dead" / "journal.db", tmp_path / "dead" / "errors.jsonl").problems == ()

    run_in(backend, 0, body)
