"""A changed pipeline is refused before any call, by name; accepted, it costs only what the change makes invalid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.core.errors import JournalError
from pipeline.durability.journal import Journal
from pipeline.durability.resume.given import REMEDY
from stages import loop, map
from tests.durability.lives import asked, attempts, chain, crashed, live, model, pipe
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = ["one", "two", "three"]
FOUR = ("1 {{ prompt }}", "2 {{ a }}", "3 {{ b }}", "4 {{ c }}")


def four(third: str = FOUR[2], **options: object) -> Pipeline:
    return pipe(FOUR[0], FOUR[1], third, FOUR[3], **options)  # type: ignore[arg-type]


@both_backends
def test_a_changed_prompt_is_refused_before_any_call_with_both_values(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(four(), PROMPTS, journal)
        with pytest.raises(JournalError) as raised:
            await live(four("Third: {{ b }}", model=model(seed=1)), PROMPTS, journal)
        assert str(raised.value).splitlines() == [
            f"{tmp_path / 'run'}: this run was begun with other definitions:",
            "  stages 'a', 'b', 'c' and 'd', model.seed: 0 is now 1",
            '  stage \'c\', prompt: "3 {{ b }}" is now "Third: {{ b }}"',
            REMEDY,
        ]
        assert asked(journal, "SELECT max(epoch) FROM attempt") == [(1,)]
        assert asked(journal, "SELECT count(*) FROM event WHERE what = 'opened'") == [(1,)]
        assert asked(journal, "SELECT count(*) FROM line") == [(3,)]

    run_in(backend, 0, body)


@both_backends
def test_after_the_third_of_four_prompts_has_changed_the_first_two_stages_are_not_asked(
    backend: str, tmp_path: Path
) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl")
        await live(four(), PROMPTS, journal)
        changed = four("Third: {{ b }}")
        lived = await live(changed, PROMPTS, replace(journal, accept_changes=True))
        assert attempts(journal, 1) == {"a": 3, "b": 3, "c": 3, "d": 3}
        assert attempts(journal, 2) == {"c": 3, "d": 3}
        assert {record.output for record in lived.records} == {f"4 Third: 2 1 {prompt}" for prompt in PROMPTS}
        assert lived.recovered is not None
        assert lived.recovered.reopened == 3
        fresh = Journal(tmp_path / "fresh", output=tmp_path / "fresh.jsonl")
        await live(changed, PROMPTS, fresh)
        rebuilt, made = ((tmp_path / name).read_bytes().splitlines() for name in ("out.jsonl", "fresh.jsonl"))
        assert sorted(rebuilt) == sorted(made)
        again = await live(changed, PROMPTS, journal)
        assert attempts(journal, 3) == {}
        assert again.recovered is not None
        assert again.recovered.lines == ("3 done",)

    run_in(backend, 0, body)


@both_backends
def test_what_a_change_does_not_touch_comes_out_byte_for_byte(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl")
        await live(four(), PROMPTS, journal)
        before = sorted((tmp_path / "out.jsonl").read_bytes().splitlines())
        await live(four(variables={"unused": 1}), PROMPTS, replace(journal, accept_changes=True))
        assert attempts(journal, 2) == {}
        assert sorted((tmp_path / "out.jsonl").read_bytes().splitlines()) == before

    run_in(backend, 0, body)


@both_backends
def test_what_is_done_only_otherwise_is_accepted_and_noted(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(four(), PROMPTS, journal)
        await live(four(max_in_flight=7), PROMPTS, journal)
        await live(four(max_in_flight=7), PROMPTS, journal)
        (noted,) = asked(journal, "SELECT value FROM event WHERE what = 'changed'")
        assert noted == ('{"changes":[{"key":"pipeline.max_in_flight","effect":"operational","old":256,"new":7}]}',)
        assert asked(journal, "SELECT epoch FROM config ORDER BY epoch") == [(1,), (2,)]
        assert asked(journal, "SELECT max(epoch) FROM attempt") == [(1,)]

    run_in(backend, 0, body)


@both_backends
def test_settings_beside_the_pipeline_decide_too(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run", settings={"input.field": "text"})
        await live(pipe(), PROMPTS, journal)
        other = replace(journal, settings={"input.field": "body"})
        with pytest.raises(JournalError, match=r'input\.field: "text" is now "body"'):
            await live(pipe(), PROMPTS, other)
        lived = await live(pipe(), PROMPTS, replace(other, accept_changes=True))
        assert len(lived.records) == 3
        await live(pipe(), PROMPTS, other)

    run_in(backend, 0, body)


@both_backends
def test_changes_are_accepted_once_also_when_the_run_that_accepts_them_crashes(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(four(), PROMPTS, journal)
        accepting = replace(journal, accept_changes=True)
        dead = await crashed(four("Third: {{ b }}"), PROMPTS, accepting, 7, tmp_path / "dead")
        lived = await live(four("Third: {{ b }}"), PROMPTS, dead)
        assert attempts(dead, 2) == {"c": 3, "d": 3}
        assert attempts(dead, 3) == {"d": 3}
        assert {record.output for record in lived.records} == {f"4 Third: 2 1 {prompt}" for prompt in PROMPTS}

    run_in(backend, 0, body)


@both_backends
def test_a_loop_whose_until_has_changed_decides_again_and_asks_only_for_new_rounds(
    backend: str, tmp_path: Path
) -> None:
    def rounds(until: str) -> Pipeline:
        body = chain("round {{ round }} {{ prompt }}")
        return Pipeline(loop(body, until=until, max_rounds=5, name="again"))

    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(rounds("{{ round >= 2 }}"), PROMPTS, journal)
        assert attempts(journal, 1) == {"a": 6}
        lived = await live(rounds("{{ round >= 3 }}"), PROMPTS, replace(journal, accept_changes=True))
        assert attempts(journal, 2) == {"a": 3}
        assert {record.output for record in lived.records} == {f"round 3 {prompt}" for prompt in PROMPTS}

    run_in(backend, 0, body)


@both_backends
def test_what_an_impure_function_said_after_a_change_is_asked_again(backend: str, tmp_path: Path) -> None:
    said: list[str] = []

    class Noted:
        version = "1"  # what it has seen is no part of what it is

        def __call__(self, value: object) -> object:
            said.append(str(value))
            return value

    noted = Noted()

    def pipeline(prompt: str) -> Pipeline:
        before = map(noted, name="before", pure=False)
        return Pipeline(before | chain(prompt) | map(noted, name="after", pure=False))

    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(pipeline("{{ before }}"), ["one"], journal)
        await live(pipeline("New: {{ before }}"), ["one"], replace(journal, accept_changes=True))
        assert said == ["one", "one", "New: one"]

    run_in(backend, 0, body)
