"""Answers that are told of as they come, to whoever listens, while the item settles once as always."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio
import pytest

from pipeline import Event, Input, Message, Pipeline, Record, TextStreamed
from stages import agent, parallel, resolve
from tests.engine.schedules import in_virtual_time, run_in


def model(**options: Any) -> Any:
    return resolve("sim/default", **{"seed": 2, "latency": "1s", **options})


async def heard(pipe: Pipeline, *prompts: object) -> tuple[list[Record], list[TextStreamed]]:
    """The records of a run, and the pieces of all its answers."""
    pieces: list[TextStreamed] = []

    def listen(event: Event) -> None:
        if isinstance(event, TextStreamed):
            pieces.append(event)

    async with pipe.open(prompts or ["why?"], on_event=listen) as run:
        records = [record async for record in run.results]
    assert run.statistics().window.balanced
    assert run.statistics().listener_errors == 0
    return records, pieces


def texts(pieces: list[TextStreamed]) -> dict[tuple[str, int, int], str]:
    """What was told of each attempt, by item, call and attempt."""
    found: dict[tuple[str, int, int], str] = defaultdict(str)
    for piece in pieces:
        found[piece.item_id, piece.ordinal, piece.attempt] += piece.text
    return dict(found)


@in_virtual_time
async def test_the_pieces_of_an_answer_come_in_order_and_are_the_answer() -> None:
    (record,), pieces = await heard(Pipeline(agent("a", model=model(), stream=True)))
    assert len(pieces) > 2
    assert {(piece.item_id, piece.path, piece.ordinal, piece.attempt) for piece in pieces} == {("0", ("a",), 0, 1)}
    assert "".join(piece.text for piece in pieces) == record.output


@in_virtual_time
async def test_an_answer_that_streams_is_the_one_that_came_whole() -> None:
    (streamed,), _ = await heard(Pipeline(agent("a", model=model(), stream=True)))
    (whole,), pieces = await heard(Pipeline(agent("a", model=model())))
    assert streamed == whole
    assert pieces == []


@in_virtual_time
async def test_pieces_come_before_the_record_is_there() -> None:
    begun = anyio.Event()

    def listen(event: Event) -> None:
        if isinstance(event, TextStreamed):
            begun.set()

    pipe = Pipeline(agent("a", model=model(latency="10s"), stream=True))
    async with pipe.open(on_event=listen) as run, anyio.create_task_group() as tg:

        async def ask() -> None:
            assert (await run.submit("why?")).status == "ok"
            assert anyio.current_time() > 9.9

        tg.start_soon(ask)
        await begun.wait()
        assert anyio.current_time() < 5
        assert run.statistics().window.settled["ok"] == 0


@in_virtual_time
async def test_an_attempt_that_breaks_off_is_begun_anew_and_the_pieces_say_so() -> None:
    (record,), pieces = await heard(Pipeline(agent("a", model=model(errors={"disconnect_mid": 0.5}), stream=True)))
    told = texts(pieces)
    assert list(told) == [("0", 0, 1), ("0", 0, 2)]
    assert told["0", 0, 2] == record.output
    assert not str(record.output).startswith(told["0", 0, 1])
    assert record.usage.requests == 2


@in_virtual_time
async def test_an_item_whose_time_is_up_in_the_middle_of_its_answer_fails_once_and_no_more_is_told() -> None:
    stalling = agent("a", model=model(errors={"stall": 1.0}), stream=True)
    (record,), pieces = await heard(Pipeline(stalling, item_timeout=30))
    assert record.error is not None
    assert (record.status, record.error.type, record.output) == ("failed", "item_timeout", None)
    assert pieces


@in_virtual_time
async def test_each_branch_tells_of_its_own_place_and_a_loser_falls_silent() -> None:
    race = parallel(
        "race",
        slow=agent("slow", model=model(latency="10s"), stream=True),
        quick=agent("quick", model=model(latency="3s"), stream=True),
        join="any",
    )
    ends: list[tuple[str, float]] = []

    def listen(event: Event) -> None:
        if isinstance(event, TextStreamed):
            ends.append(("/".join(event.path), anyio.current_time()))

    async with Pipeline(race).open(["why?"], on_event=listen) as run:
        (record,) = [record async for record in run.results]
    assert record.status == "ok"
    assert {place for place, _ in ends} == {"race/slow/slow", "race/quick/quick"}
    assert max(at for _, at in ends) < 3.5


@in_virtual_time
async def test_each_round_with_tools_is_a_call_of_its_own() -> None:
    async def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    (record,), pieces = await heard(Pipeline(agent("lead", model=model(), tools=[add], stream=True)))
    assert list(texts(pieces)) == [("0", 1, 1)]
    assert texts(pieces)["0", 1, 1] == record.output
    assert "The tools said: " in str(record.output)
    assert record.usage.requests == 2


@in_virtual_time
async def test_a_listener_that_raises_changes_nothing() -> None:
    def listen(event: Event) -> None:
        raise RuntimeError("deaf")

    async with Pipeline(agent("a", model=model(), stream=True)).open(["why?"], on_event=listen) as run:
        (record,) = [record async for record in run.results]
    assert record.status == "ok"
    assert run.statistics().listener_errors > 2


def test_the_same_is_told_on_both_backends() -> None:
    flaky = Pipeline(agent("a", model=model(errors={"disconnect_mid": 0.3, "429": 0.2}), stream=True), ordered=True)
    prompts = [f"question {n}" for n in range(20)]
    (records, pieces), (others, same) = (
        run_in(backend, seed, heard, flaky, *prompts) for seed, backend in enumerate(("asyncio", "trio"))
    )
    assert records == others
    assert texts(pieces) == texts(same)
    assert any(attempt > 1 for _, _, attempt in texts(pieces))


@in_virtual_time
async def test_an_application_forwards_pieces_to_each_of_its_clients() -> None:
    shown: dict[str, str] = defaultdict(str)
    attempts: dict[str, int] = {}

    def forward(event: Event) -> None:
        if isinstance(event, TextStreamed):
            if attempts.setdefault(event.item_id, event.attempt) != event.attempt:  # a retry begins anew
                attempts[event.item_id], shown[event.item_id] = event.attempt, ""
            shown[event.item_id] += event.text

    pipe = Pipeline(agent("answer", model=model(errors={"disconnect_mid": 0.3}), stream=True))
    async with pipe.open(on_event=forward) as run, anyio.create_task_group() as clients:

        async def client(name: str) -> None:
            record = await run.submit(Input(f"why, {name}?", id=name))
            assert record.status in ("ok", "failed")
            assert record.status == "failed" or record.output == shown[name]

        for n in range(20):
            clients.start_soon(client, f"client{n}")
    assert len(shown) == 20
    assert max(attempts.values()) > 1


# -- what an answer that is not whole becomes -------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "options", "expected"),
    [
        ("length", {}, "ok"),
        ("length", {"on_truncated": "accept"}, "ok"),
        ("length", {"on_truncated": "fail"}, "truncated"),
        ("length", {"on_refused": "fail"}, "ok"),
        ("refusal", {}, "ok"),
        ("refusal", {"on_refused": "accept"}, "ok"),
        ("refusal", {"on_refused": "fail"}, "refused"),
        ("refusal", {"on_truncated": "fail"}, "ok"),
    ],
)
def test_a_stage_says_what_becomes_of_an_answer_that_is_not_whole(
    fault: str, options: dict[str, Any], expected: str, stream: bool, backend: str
) -> None:
    async def body() -> Record:
        asking = agent("a", model=model(errors={fault: 1.0}), stream=stream, **options)
        (record,) = await Pipeline(asking).collect(["why is the sky blue?"])
        return record

    record = run_in(backend, 0, body)
    assert (record.error.type if record.error else record.status) == expected
    assert record.usage.requests == 1  # the same request is never sent again for it


@in_virtual_time
async def test_a_conversation_with_tools_goes_through_the_whole_call_stack() -> None:
    async def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    seen: list[tuple[Message, ...]] = []

    async def look(prompt: str, state: Any) -> str:
        seen.append(state.messages)
        return prompt

    flaky = model(errors={"429": 0.3})
    pipe = Pipeline(agent("lead", model=flaky, tools=[add], conversation=True) | look, ordered=True)
    records = await pipe.collect([f"question {n}" for n in range(20)])
    assert [record.status for record in records] == ["ok"] * 20
    for question, asked, told, answer in seen:
        assert (question.role, asked.role, told.role, answer.role) == ("user", "assistant", "tool", "assistant")
        assert asked.tool_calls[0].name == "add"
        assert told.tool_call_id == asked.tool_calls[0].id
        assert told.content in answer.content


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_before_an_answer_that_fits_its_schema(stream: bool, backend: str) -> None:
    async def add(a: int, b: int) -> int:
        """The sum of two numbers."""
        return a + b

    async def body() -> Record:
        lead = agent("lead", model=model(), tools=[add], output={"total": "integer"}, stream=stream)
        (record,) = await Pipeline(lead).collect(["1 + 1?"])
        return record

    record = run_in(backend, 0, body)
    assert isinstance(record.output, dict)
    assert list(record.output) == ["total"]
    assert record.usage.requests == 2
