"""What is asked for is done again, and nothing else: failed records, or everything from one stage on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from pipeline import Pipeline
from pipeline.core.errors import JournalError
from pipeline.durability.journal import Journal
from pipeline.durability.resume.reopening import Reopen
from stages import map, parallel
from tests.durability.lives import asked, attempts, chain, crashed, live, pipe
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = ["one", "two", "three"]
FAILED = Reopen(failed=True)
ONLY_FAILED = Reopen(only_failed=True)


class Fussy:
    """A function that refuses what it is told to."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.seen: list[str] = []

    version = "1"

    def __call__(self, value: object) -> object:
        self.seen.append(str(value))
        if str(value) in self.refused:
            raise ValueError(f"no {value}")
        return value


def fussy(function: Fussy) -> Pipeline:
    """Asks first, then refuses."""
    return Pipeline(chain("{{ prompt }}") | map(function, name="check", pure=True) | chain_after())


def chain_after() -> object:
    return map(lambda value: value, name="after")


def statuses(journal: Journal) -> dict[str, str]:
    return dict(asked(journal, "SELECT id, status FROM root LEFT JOIN settled ON root = seq ORDER BY seq"))


def by_prompt(journal: Journal) -> list[str]:
    return [
        status for _, status in asked(journal, "SELECT seq, status FROM root JOIN settled ON root = seq ORDER BY seq")
    ]


@both_backends
def test_failed_records_are_run_again_with_the_answers_they_have(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        function = Fussy("two")
        journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl")
        await live(fussy(function), PROMPTS, journal)
        assert by_prompt(journal) == ["ok", "failed", "ok"]
        function.refused.clear()
        function.seen.clear()
        lived = await live(fussy(function), PROMPTS, replace(journal, reopen=FAILED))
        assert by_prompt(journal) == ["ok", "ok", "ok"]
        assert function.seen == ["two"]
        assert attempts(journal, 2) == {}
        assert [record.output for record in lived.records] == ["two"]
        assert lived.recovered is not None
        assert (lived.recovered.done, lived.recovered.reopened) == (2, 1)
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert len(lines) == 3
        assert all('"status":"ok"' in line for line in lines)
        assert '"output":"two"' in lines[-1]

    run_in(backend, 0, body)


@both_backends
def test_without_being_asked_nothing_that_failed_is_run_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        function = Fussy("two")
        journal = Journal(tmp_path / "run")
        await live(fussy(function), PROMPTS, journal)
        function.refused.clear()
        assert (await live(fussy(function), PROMPTS, journal)).records == []
        assert by_prompt(journal) == ["ok", "failed", "ok"]

    run_in(backend, 0, body)


@both_backends
def test_a_call_that_failed_is_made_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        from tests.durability.lives import model

        refusing = pipe("{{ prompt }}", model=model(errors={"500": 1.0}, attempts=1, seed=1))
        journal = Journal(tmp_path / "run")
        await live(refusing, PROMPTS, journal)
        assert by_prompt(journal) == ["failed"] * 3
        await live(refusing, PROMPTS, journal)
        assert attempts(journal, 2) == {}
        await live(refusing, PROMPTS, replace(journal, reopen=FAILED))
        assert attempts(journal, 3) == {"a": 3}

    run_in(backend, 0, body)


@both_backends
def test_only_failed_leaves_the_source_and_what_is_open_alone(backend: str, tmp_path: Path) -> None:
    async def source() -> AsyncIterator[object]:
        raise AssertionError("it is not read")
        yield

    async def body() -> None:
        function = Fussy("two")
        pipeline = fussy(function)
        first = Journal(tmp_path / "run")
        await live(pipeline, PROMPTS, first)
        dead = await crashed(pipeline, [*PROMPTS, "four", "five"], first, 2, tmp_path / "dead")
        function.refused.clear()
        function.seen.clear()
        lived = await live(pipeline, source(), replace(dead, reopen=ONLY_FAILED))
        assert [record.output for record in lived.records] == ["two"]
        assert function.seen == ["two"]
        assert list(statuses(dead).values()) == ["ok", "ok", "ok", None, None]
        await live(pipeline, [*PROMPTS, "four", "five"], dead)
        assert list(statuses(dead).values()) == ["ok"] * 5

    run_in(backend, 0, body)


@both_backends
def test_only_failed_goes_on_with_what_an_earlier_one_has_opened(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        from tests.durability.lives import model

        refusing = pipe("{{ prompt }}", model=model(errors={"500": 1.0}, attempts=1))
        first = Journal(tmp_path / "run")
        await live(refusing, PROMPTS, first)
        dead = await crashed(refusing, [], replace(first, reopen=ONLY_FAILED), 2, tmp_path / "dead")
        assert list(statuses(dead).values()) == [None] * 3
        await live(refusing, [], replace(dead, reopen=ONLY_FAILED))
        assert by_prompt(dead) == ["failed"] * 3
        assert attempts(dead, 3) == {"a": 3}

    run_in(backend, 0, body)


@both_backends
def test_from_a_stage_on_all_is_done_again_and_what_is_before_is_kept(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        pipeline = pipe("1 {{ prompt }}", "2 {{ a }}", "3 {{ b }}")
        journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl")
        await live(pipeline, PROMPTS, journal)
        before = (tmp_path / "out.jsonl").read_bytes()
        await live(pipeline, PROMPTS, replace(journal, reopen=Reopen(from_stage="b")))
        assert attempts(journal, 2) == {"b": 3, "c": 3}
        after = (tmp_path / "out.jsonl").read_bytes()
        assert sorted(after.splitlines()) == sorted(before.splitlines())
        (event,) = asked(journal, "SELECT value FROM event WHERE what = 'reopened'")
        assert event == ('{"roots":3,"lines":3,"facts":6}',)

    run_in(backend, 0, body)


@both_backends
def test_from_a_stage_in_a_branch_the_other_branch_is_kept(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        both = parallel("both", left=chain("l {{ prompt }}"), right=map(lambda value: value, name="r"))
        journal = Journal(tmp_path / "run")
        pipeline = Pipeline(both)
        await live(pipeline, PROMPTS, journal)
        await live(pipeline, PROMPTS, replace(journal, reopen=Reopen(from_stage="r")))
        assert attempts(journal, 2) == {}
        await live(pipeline, PROMPTS, replace(journal, reopen=Reopen(from_stage="a")))
        assert attempts(journal, 3) == {"a": 3}

    run_in(backend, 0, body)


@both_backends
def test_lines_that_are_written_anew_and_not_taken_are_none_that_were_taken_before(
    backend: str, tmp_path: Path
) -> None:
    """What was taken is known by the number of the line, so those of lines that were taken back are not given again."""

    async def body() -> None:
        journal = Journal(tmp_path / "run")
        assert len((await live(pipe(), PROMPTS, journal)).records) == 3
        async with pipe().open(PROMPTS, journal=replace(journal, reopen=Reopen(from_stage="a"))):
            await anyio.sleep(60)
        assert asked(journal, "SELECT number FROM line ORDER BY number") == [(4,), (5,), (6,)]
        lived = await live(pipe(), PROMPTS, journal)
        assert sorted(str(record.output) for record in lived.records) == sorted(PROMPTS)
        assert attempts(journal, 3) == {}

    run_in(backend, 0, body)


@both_backends
def test_a_stage_that_is_not_there_is_refused_and_nothing_has_changed(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(pipe("1 {{ prompt }}", "2 {{ a }}"), PROMPTS, journal)
        with pytest.raises(JournalError, match="there is no stage 'x' in this pipeline; there are: a, b"):
            await live(pipe("1 {{ prompt }}", "2 {{ a }}"), PROMPTS, replace(journal, reopen=Reopen(from_stage="x")))
        assert asked(journal, "SELECT count(*) FROM event WHERE what = 'opened'") == [(1,)]

    run_in(backend, 0, body)
