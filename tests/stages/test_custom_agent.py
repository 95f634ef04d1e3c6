"""An agent of one's own over the full call stack: `visit.call` retries, validates, counts and can be cancelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import anyio

from pipeline import ConversationState, Message, Pipeline, Record, Visit
from pipeline.core.ports import OpenModel, Resource
from stages import agent, parallel
from stages.models import SimulatedModel
from tests.engine.schedules import in_virtual_time, run_in

LIMITED = SimulatedModel(seed=3, latency="100ms", errors={"429": 0.3})
SOUND = SimulatedModel(seed=3, latency="100ms")
VERDICT = {"score": "number", "keep": "boolean"}


@dataclass(frozen=True)
class SelfCritic:
    """Drafts, asks for a verdict on the draft, and answers with both."""

    name: str
    model: Resource[OpenModel]

    def resources(self) -> tuple[Resource[object], ...]:
        return (self.model,)

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> dict[str, object]:
        draft = await visit.call(self.model, [Message("user", prompt)], max_output_tokens=40)
        verdict = await visit.call(self.model, [Message("user", f"Judge: {draft.text}")], schema=VERDICT)
        return {"draft": draft.text, "verdict": verdict.parsed}


async def judged(count: int = 20) -> list[Record]:
    pipe = Pipeline(agent(SelfCritic("critic", LIMITED)), ordered=True)
    return await pipe.collect([f"question {n}" for n in range(count)])


@in_virtual_time
async def test_each_call_is_retried_validated_and_counted_into_the_record() -> None:
    records = await judged()
    assert [record.status for record in records] == ["ok"] * 20
    for record in records:
        output = cast("dict[str, dict[str, object]]", record.output)
        assert str(output["draft"]).startswith("[simulated sim/default")
        assert sorted(output["verdict"]) == ["keep", "score"]
        assert record.usage.requests >= 2
        assert record.cost is not None
        assert record.cost.source == "simulated"
    assert sum(record.usage.requests for record in records) > 2 * 20  # some were refused at first, and paid for


def test_its_answers_are_equal_on_both_backends() -> None:
    first, second = (run_in(backend, seed, judged) for seed, backend in enumerate(("asyncio", "trio")))
    assert first == second


@in_virtual_time
async def test_the_calls_of_one_visit_may_be_made_at_once_and_are_told_apart() -> None:
    class Chorus:
        name = "chorus"

        def resources(self) -> tuple[SimulatedModel, ...]:
            return (SOUND,)

        async def process(self, prompt: str, state: ConversationState, visit: Visit) -> list[str]:
            voices = [""] * 3

            async def sing(n: int) -> None:
                voices[n] = (await visit.call(SOUND, [Message("user", prompt)])).text

            async with anyio.create_task_group() as tg:
                for n in range(3):
                    tg.start_soon(sing, n)
            return voices

    (record,) = await Pipeline(agent(Chorus())).collect(["why?"])
    assert record.status == "ok"
    assert len(set(cast("list[str]", record.output))) == 3
    assert record.usage.requests == 3
    assert anyio.current_time() < 0.2


@in_virtual_time
async def test_a_final_refusal_fails_the_item_at_its_stage() -> None:
    refusing = SimulatedModel(latency="100ms", fail_when="Judge")
    (record,) = await Pipeline(agent(SelfCritic("critic", refusing))).collect(["why?"])
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.stage, record.error.http_status) == ("critic", 400)
    assert record.usage.requests == 2


@in_virtual_time
async def test_a_visit_that_loses_a_race_ends_its_call() -> None:
    slow = SimulatedModel(seed=1, latency="1h")
    race = parallel("race", slow=SelfCritic("slow", slow), fast=SelfCritic("fast", SOUND), join="any")
    async with Pipeline(race).open(["why?"]) as run:
        (record,) = [record async for record in run.results]
    assert record.status == "ok"
    assert list(cast("dict[str, object]", record.output)) == ["draft", "verdict"]
    assert anyio.current_time() < 1
    assert run.statistics().window.balanced


@in_virtual_time
async def test_a_model_that_it_does_not_name_among_its_resources_is_not_open() -> None:
    class Forgetful:
        name = "forgetful"

        async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
            return (await visit.call(SOUND, [Message("user", prompt)])).text

    (record,) = await Pipeline(agent(Forgetful())).collect(["why?"])
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.message.endswith("was not opened; a stage must name it among its resources()")


def test_equal_agents_are_equal_stages() -> None:
    assert agent(SelfCritic("critic", SOUND)) == agent(SelfCritic("critic", SOUND))
    assert agent(SelfCritic("critic", SOUND)) != agent(SelfCritic("critic", LIMITED))
