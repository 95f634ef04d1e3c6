"""Every file in configs/ is run, on both backends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

from pipeline import Pipeline, Record
from pipeline.config.description import load
from pipeline.config.document import read_document
from pipeline.core.codec import encode

CONFIGS = Path(__file__).parent.parent.parent / "configs"
PROMPTS = (CONFIGS / "prompts.txt").read_text(encoding="utf-8").splitlines()
SIMULATED = ["sequential", "parallel", "article", "coordinator", "research", "polish", "chapters", "debate", "limits"]


def pipeline_of(name: str, *overrides: str, ordered: bool = True) -> Pipeline:
    described = load(CONFIGS / f"{name}.yaml", overrides=overrides)
    return Pipeline(described.stages, variables=described.vars, **{**described.options, "ordered": ordered})


def lines(records: Sequence[Record]) -> bytes:
    return b"\n".join(encode(record.standard()) for record in records)


def quick(*overrides: str) -> tuple[str, ...]:
    return ("models.fake.latency=1ms", *overrides)


def test_the_prompts_are_the_three_of_the_article() -> None:
    assert PROMPTS == [
        "What are the latest AI trends?",
        "Summarize recent LLM research",
        "Identify key challenges in multi-agent systems",
    ]


@pytest.mark.parametrize("name", SIMULATED)
async def test_every_prompt_gives_an_ok_record(name: str) -> None:
    records = await pipeline_of(name, *quick()).collect(PROMPTS)
    assert [record.status for record in records] == ["ok"] * 3


@pytest.mark.parametrize("name", SIMULATED)
def test_both_backends_give_the_same_bytes_in_input_order(name: str) -> None:
    pipe = pipeline_of(name, *quick("models.fake.latency=uniform:1ms..20ms"))
    on_asyncio, on_trio = (anyio.run(pipe.collect, PROMPTS, backend=backend) for backend in ("asyncio", "trio"))
    assert lines(on_asyncio) == lines(on_trio)


@pytest.mark.parametrize("name", SIMULATED)
async def test_another_seed_gives_another_text(name: str) -> None:
    seven = await pipeline_of(name, *quick()).collect(PROMPTS)
    eight = await pipeline_of(name, *quick("models.fake.seed=8")).collect(PROMPTS)
    assert [record.id for record in seven] == [record.id for record in eight]
    assert all(a.output != b.output for a, b in zip(seven, eight, strict=True))


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("sequential", ["analyst", "historian", "skeptic"]),
        ("parallel", ["research.analyst", "research.historian", "research.skeptic"]),
        ("article", ["findings.trends", "findings.research", "findings.challenges"]),
    ],
)
async def test_a_made_up_prompt_shows_in_the_answer_of_every_agent_it_reaches(name: str, places: list[str]) -> None:
    prompt = "Why do herons stand on one leg, exactly 7319 times?"
    (record,) = await pipeline_of(name, *quick()).collect([prompt])
    for place in places:
        value: object = record.outputs
        for key in place.split("."):
            value = value[key]  # type: ignore[index]
        assert prompt in str(value)


async def test_the_same_agents_stand_in_sequence_and_in_parallel() -> None:
    def agents(node: object) -> list[object]:
        if isinstance(node, dict):
            found = [node] if "agent" in node else []
            return found + [agent for value in node.values() for agent in agents(value)]
        return [agent for value in node for agent in agents(value)] if isinstance(node, list) else []

    import yaml

    files = [yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("sequential", "parallel")]
    assert agents(files[0]["stages"]) == agents(files[1]["stages"])
    assert files[0]["models"] == files[1]["models"]


async def test_research_asks_ten_subagents_and_the_writer_sees_all_their_findings() -> None:
    (record,) = await pipeline_of("research", *quick()).collect(["herons"])
    assert record.usage.requests == 12
    assert len(record.outputs["lead"]["questions"]) == 10  # type: ignore[index, call-overload]


async def test_research_makes_do_with_eight_of_ten() -> None:
    pipe = pipeline_of("research", *quick("models.fake.fail_when=questions 3"))
    (record,) = await pipe.collect(["herons"])
    assert record.status == "partial"
    assert record.missing == ("findings.2",)


async def test_the_article_keeps_what_two_of_three_researchers_found() -> None:
    pipe = pipeline_of("article", *quick("models.fake.fail_when=Identify key challenges"))
    (record,) = await pipe.collect(["software teams"])
    assert record.status == "partial"
    assert record.missing == ("findings.challenges",)
    assert list(record.output) == ["trends", "research"]  # type: ignore[call-overload]


async def test_the_coordinator_asks_one_specialist_only() -> None:
    records = await pipeline_of("coordinator", *quick()).collect(PROMPTS)
    assert [record.usage.requests for record in records] == [3, 3, 3]
    assert {record.outputs["answer_label"] for record in records} <= {"trends", "research", "engineering"}


def test_every_commented_option_of_the_openai_file_is_one_that_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CONFIGS / "openai.yaml").read_text(encoding="utf-8")
    kept: list[str] = []
    for line in text.splitlines():
        body = line.lstrip()
        uncommented = body.removeprefix("# ")
        is_option = body.startswith("# ") and uncommented.split(":")[0].isidentifier() and line.startswith("  ")
        kept.append(line[: len(line) - len(body)] + uncommented if is_option else line)
    from pipeline.config.description import load_text

    described = load_text("\n".join(kept), "openai.yaml", environment={})
    pipe = Pipeline(described.stages, variables=described.vars, **described.options)
    assert pipe.buffer_size == 1
    assert described.models.keys() == {"gpt", "fake"}
    assert read_document("\n".join(kept).encode(), "openai.yaml")


async def test_the_critic_of_polish_is_content_or_the_rounds_are_used_up() -> None:
    records = await pipeline_of("polish", *quick()).collect(PROMPTS)
    for record in records:
        rounds, exhausted = record.outputs["polish_rounds"], record.outputs["polish_exhausted"]
        assert rounds in (1, 2, 3, 4)
        assert rounds == 4 or not exhausted
        assert "Write about:" in str(record.output)
    assert len({record.outputs["polish_rounds"] for record in records}) > 1


async def test_in_the_debate_each_side_answers_the_other_and_the_most_judges_decide() -> None:
    records = await pipeline_of("debate", *quick()).collect(PROMPTS)
    for record in records:
        turns, votes = record.outputs["debate"], record.outputs["verdict_votes"]
        assert isinstance(turns, list)
        assert isinstance(votes, dict)
        assert len(turns) == record.outputs["debate_rounds"]
        for before, turn in pairwise(turns):
            assert (before["con"] in turn["pro"], before["pro"] in turn["con"]) == (True, True)
        assert sum(votes.values()) == 3
        assert record.outputs["verdict"] == {"side": max(votes, key=votes.__getitem__)}
    assert len({record.outputs["debate_rounds"] for record in records}) > 1


async def test_the_notes_of_chapters_are_in_the_order_of_the_parts() -> None:
    (record,) = await pipeline_of("chapters", *quick("models.fake.latency=uniform:1ms..20ms")).collect(
        ["one two three"]
    )
    notes = record.outputs["notes"]
    assert isinstance(notes, list)
    assert [str(note).rpartition(" ")[2] for note in notes] == ["one", "two", "three"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_digest_is_one_record_that_names_its_inputs(backend: str) -> None:
    (record,) = anyio.run(pipeline_of("digest", *quick()).collect, PROMPTS, backend=backend)
    assert record.status == "ok"
    assert sorted(record.inputs) == ["0", "1", "2"]
    assert all(prompt in str(record.output) for prompt in PROMPTS)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_chat_keeps_the_turns_of_each_user_in_order(backend: str) -> None:
    turns = [
        {"id": f"{user}{turn}", "user": user, "prompt": f"turn {turn}"} for turn in range(3) for user in ("ann", "bob")
    ]
    records = anyio.run(pipeline_of("chat", *quick(), ordered=False).collect, turns, backend=backend)
    for user in ("ann", "bob"):
        assert [record.id for record in records if record.id.startswith(user)] == [f"{user}{turn}" for turn in range(3)]
