"""What reviewers found by breaking it, each pinned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import anyio
import pytest

from pipeline import (
    ConversationState,
    ItemError,
    Pipeline,
    PipelineError,
    Record,
    Run,
    RunClosed,
    RunStopped,
    Skip,
    SourceError,
    Usage,
    Visit,
)
from pipeline.core.stage import Stage
from pipeline.core.virtual import Stalled, virtual
from stages import agent, batch, flat_map, map, parallel, partition_by, quorum, route, scatter
from tests.stages.models import ScriptedModel

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@dataclass(frozen=True)
class Patient:
    """An agent that makes three calls at once, each of which waits between two attempts."""

    name: str = "patient"

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
        async def call() -> None:
            async with visit.without_slot():
                await anyio.sleep(1)

        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(call)
        return prompt


@BACKENDS
def test_several_calls_of_one_visit_share_its_slot(backend: str) -> None:
    async def main() -> list[Record]:
        pipe = Pipeline(agent(Patient(), concurrency=1))
        async with pipe.open([str(n) for n in range(5)]) as run:
            return [record async for record in run.results]

    records = anyio.run(main, **virtual(backend))
    assert [record.status for record in records] == ["ok"] * 5


@BACKENDS
def test_results_end_with_the_source_while_a_submit_is_still_open(backend: str) -> None:
    async def slow(value: float) -> float:
        await anyio.sleep(value)
        return value

    async def main() -> float:
        async with Pipeline(map(slow, concurrency=4)).open([1.0, 2.0]) as run, anyio.create_task_group() as tg:
            tg.start_soon(run.submit, 60.0)
            assert len([record async for record in run.results]) == 2
            ended = anyio.current_time()
            tg.cancel_scope.cancel()
        return ended

    assert anyio.run(main, **virtual(backend)) == 2.0


async def test_records_of_the_source_are_numbered_apart_from_submitted_ones() -> None:
    async with Pipeline(map(str)).open(["a"]) as run:
        submitted = await run.submit("x")
        (record,) = [record async for record in run.results]
    assert (record.id, record.index) == ("0", 0)
    assert (submitted.id, submitted.index) == ("submit-0", 0)


async def test_records_given_by_code_keep_the_id_that_they_bring() -> None:
    records = await Pipeline(map(len), ordered=True).collect([{"id": "x7"}, {"id": 8}, {"custom_id": "c"}, {"n": 1}])
    assert [record.id for record in records] == ["x7", "8", "c", "3"]


async def test_a_submit_that_would_become_several_records_is_refused() -> None:
    async with Pipeline(flat_map(list)).open() as run:
        with pytest.raises(PipelineError, match="takes no submit: 'list' makes several records of one"):
            await run.submit([1, 2])


async def hang_on_stuck(value: str) -> list[str]:
    if value == "stuck":
        await anyio.sleep(1000)
    return [value]


async def hang_midway(value: str) -> AsyncIterator[str]:
    if value == "stuck":
        await anyio.sleep(1000)
    yield value


@BACKENDS
@pytest.mark.parametrize("function", [hang_on_stuck, hang_midway])
def test_a_stuck_flat_map_costs_one_item_and_no_more(backend: str, function: object) -> None:
    async def main() -> list[tuple[str, str]]:
        pipe = Pipeline(flat_map(function, name="f"), item_timeout=5)  # type: ignore[arg-type]
        async with pipe.open(late()) as run:
            return [(record.id, record.status) async for record in run.results]

    async def late() -> AsyncIterator[str]:
        yield "stuck"
        await anyio.sleep(3)
        yield "b"

    assert anyio.run(main, **virtual(backend)) == [("0", "failed"), ("1#0", "ok")]


@BACKENDS
def test_a_drain_ends_an_async_split_over_the_children_that_are_out_and_says_so(backend: str) -> None:
    async def endless(value: str) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await anyio.sleep(1)

    async def main() -> list[Record]:
        async with Pipeline(scatter("s", split=endless, each=map(str))).open(["x"]) as run:
            await anyio.sleep(2.5)
            run.drain("items")
            return [record async for record in run.results]

    (record,) = anyio.run(main, **virtual(backend))
    assert (record.status, record.output, record.missing) == ("partial", ["0", "1", "2"], ("s.rest",))


@BACKENDS
def test_a_drain_cuts_no_list_and_no_plan_that_is_being_made(backend: str) -> None:
    async def planned(value: str) -> list[int]:
        await anyio.sleep(2)
        return [1, 2, 3]

    async def main() -> list[Record]:
        async with Pipeline(scatter("s", split=planned, each=map(str))).open(["x"]) as run:
            await anyio.sleep(1)
            run.drain("items")
            return [record async for record in run.results]

    (record,) = anyio.run(main, **virtual(backend))
    assert record.output == ["1", "2", "3"]


@BACKENDS
def test_an_item_whose_time_is_up_keeps_what_was_finished_and_names_the_stage(backend: str) -> None:
    async def forever(value: str) -> str:
        await anyio.sleep_forever()
        return value

    async def main() -> list[Record]:
        return await Pipeline(map(str.upper, name="one") | map(forever, name="two"), item_timeout=5).collect(["a"])

    (record,) = anyio.run(main, **virtual(backend))
    assert record.error is not None
    assert (record.error.type, record.error.stage) == ("item_timeout", "two")
    assert record.error.message == "not finished within item_timeout, 5 s"
    assert record.outputs == {"one": "A"}


@BACKENDS
def test_a_slow_reader_does_not_use_up_the_time_of_a_root_whose_children_are_done(backend: str) -> None:
    async def main() -> list[str]:
        read: list[str] = []
        async with Pipeline(flat_map(list), item_timeout=5).open([[1, 2, 3]]) as run:
            async for record in run.results:
                read.append(record.status)
                await anyio.sleep(4)
        assert run.statistics().window.settled["ok"] == 1
        return read

    assert anyio.run(main, **virtual(backend)) == ["ok", "ok", "ok"]


@BACKENDS
def test_what_was_never_classified_is_cancelled_by_a_drain_and_not_sent_to_the_default(backend: str) -> None:
    async def patient(prompt: str, state: ConversationState, visit: Visit) -> str:
        async with visit.without_slot():
            await anyio.sleep(100)
        return "x"

    async def main() -> dict[str, int]:
        pipe = Pipeline(route({"x": map(str)}, by=agent(patient), default=map(repr), on_error="default"))
        async with pipe.open(["a", "b"]) as run:
            await anyio.sleep(1)
            run.drain("calls")
            assert [record async for record in run.results] == []
        return dict(run.statistics().window.settled)

    assert anyio.run(main, **virtual(backend))["cancelled"] == 2


async def test_the_concurrency_of_blocking_stages_can_be_changed() -> None:
    import threading

    together = threading.Barrier(3, timeout=20)

    def meet(value: int) -> int:
        together.wait()
        return value

    async with Pipeline(map(meet, blocking=True, concurrency=1)).open() as run:
        run.set_concurrency("meet", 3)
        async with anyio.create_task_group() as tg:
            for n in range(3):
                tg.start_soon(run.submit, n)
        assert run.statistics().window.settled["ok"] == 3


async def test_a_number_is_a_prompt_whatever_came_before_it() -> None:
    records = await Pipeline(map(abs) | agent("a", model=ScriptedModel()), ordered=True).collect([5, -5])
    assert [record.output for record in records] == ["5", "5"]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (lambda failure: 1 / 0, "on_error raised ZeroDivisionError: division by zero"),
        (lambda failure: "retry", "on_error returned 'retry', the actions are dead_letter, skip, fail"),
    ],
)
async def test_a_policy_that_says_nothing_useful_ends_the_run_with_a_reason(policy: object, text: str) -> None:
    def broken(value: object) -> object:
        raise ValueError("boom")

    with pytest.raises(RunStopped, match=text):
        await Pipeline(map(broken), on_error=policy).collect([1])  # type: ignore[arg-type]


async def test_the_pipeline_s_policy_is_for_what_leaves_it_and_a_join_judges_its_members() -> None:
    def broken(value: object) -> object:
        raise ValueError("boom")

    heard: list[str | None] = []

    def hear(failure: object) -> str:
        heard.append(getattr(failure, "stage", None))
        return "dead_letter"

    branches = parallel("p", a=map(str), bad=map(broken), join=quorum(1))
    (record,) = await Pipeline(branches, on_error="fail").collect([1])
    assert record.status == "partial"
    (record,) = await Pipeline(parallel("p", bad=map(broken)), on_error=hear).collect([1])  # type: ignore[arg-type]
    assert (record.status, heard) == ("failed", ["broken"])


async def test_a_partial_record_says_why_what_is_missing_is_missing() -> None:
    def broken(value: object) -> object:
        raise ValueError("no such model")

    (record,) = await Pipeline(parallel("p", a=map(str), b=map(broken), join=quorum(1))).collect([1])
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("Partial", "p.b: no such model")


async def test_each_child_is_charged_what_it_used_and_the_first_what_was_used_before() -> None:
    async def charged(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=10, requests=1), None)
        return prompt

    async def again(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=1, requests=1), None)
        return prompt

    pipe = Pipeline(agent(charged) | flat_map(str.split) | agent(again), ordered=True)
    records = await pipe.collect(["a b c"])
    assert [record.usage.input_tokens for record in records] == [11, 1, 1]


class Unwritable:
    """A sink that writes no sets."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, object]] = []

    async def write(self, record: Record) -> None:
        if isinstance(record.output, set) or isinstance(record.input, set):
            raise ItemError("a set is not JSON", type="NotJson")
        self.lines.append((record.status, record.input))


async def test_a_record_that_cannot_be_written_fails_alone_even_if_it_is_its_input() -> None:
    sink = Unwritable()
    statistics = await Pipeline(map(lambda value: {1} if value == 1 else value, name="m"), ordered=True).run(
        [1, {2}, 3], sink
    )
    assert sink.lines == [("failed", 1), ("failed", None), ("ok", 3)]
    assert statistics.window.settled["failed"] == 2


async def test_what_is_no_sink_is_refused_with_what_a_sink_is() -> None:
    with pytest.raises(TypeError, match=r"a sink has `async def write\(self, record\)`"):
        await Pipeline(map(str)).run([1], print)  # type: ignore[arg-type]


async def test_none_is_no_source() -> None:
    with pytest.raises(SourceError, match="got NoneType"):
        await Pipeline(map(str)).collect(None)  # type: ignore[arg-type]


async def test_a_generator_that_is_left_early_is_closed() -> None:
    closed: list[bool] = []

    def endless() -> Iterator[int]:
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            closed.append(True)

    async with Pipeline(map(str)).open(endless()) as run:
        async for _ in run.results:
            break
    assert closed == [True]


async def test_skips_are_not_counted_as_failures() -> None:
    def leave(value: object) -> object:
        raise Skip

    async with Pipeline(map(leave)).open([1, 2]) as run:
        assert [record async for record in run.results] == []
    (stage,) = run.statistics().stages
    assert (stage.skipped, stage.failed) == (2, 0)


def by_key(key: object) -> object:
    return partition_by(key, map(str, name="body"))  # type: ignore[arg-type]


def by_weight(weight: object) -> object:
    return batch(map(list, name="body"), size=2, weight=weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("stage", [by_key, by_weight])
@BACKENDS
def test_an_item_whose_key_or_weight_is_waited_for_is_cancelled_with_the_run(backend: str, stage: object) -> None:
    async def main() -> dict[str, int]:
        async with Pipeline(stage(anyio.sleep)).open([1]) as run:  # type: ignore[operator]
            await anyio.sleep(0.5)
        return dict(run.statistics().window.settled)

    assert anyio.run(main, **virtual(backend))["cancelled"] == 1


@pytest.mark.parametrize("stage", [by_key, by_weight])
@BACKENDS
def test_a_key_or_weight_that_never_comes_costs_its_item_and_no_other(backend: str, stage: object) -> None:
    async def ask(value: int) -> int:
        await anyio.sleep(value)
        return 1

    async def main() -> list[tuple[str, str | None]]:
        records = await Pipeline(stage(ask), item_timeout=5, ordered=True).collect([1000, 1])  # type: ignore[operator]
        return [(record.status, record.error and record.error.stage) for record in records]

    assert anyio.run(main, **virtual(backend))[0] == ("failed", stage(ask).name)  # type: ignore[operator]


@pytest.mark.parametrize("stage", [batch(size=3, within=None), batch(map(list, name="body"), size=3, within=None)])
@BACKENDS
def test_the_last_batch_of_an_open_run_goes_when_the_source_has_ended(backend: str, stage: Stage) -> None:
    async def main() -> list[str]:
        async with Pipeline(stage).open([1, 2, 3, 4]) as run:
            return [record.status async for record in run.results]

    assert set(anyio.run(main, **virtual(backend))) == {"ok"}


@BACKENDS
def test_the_pipeline_s_policy_is_for_flat_maps_too_and_a_skip_is_a_skip(backend: str) -> None:
    def expand(value: str) -> Iterator[str]:
        yield from value
        if value == "ab":
            raise ValueError("boom")
        if value == "cd":
            raise Skip

    async def main() -> tuple[list[str], tuple[int, int]]:
        pipe = Pipeline(flat_map(expand), on_error="skip", ordered=True)
        async with pipe.open(["ab", "cd"]) as run:
            ids = [record.id async for record in run.results]
        (stage,) = run.statistics().stages
        return ids, (stage.failed, stage.skipped)

    assert anyio.run(main, **virtual(backend)) == (["0#0", "0#1", "1#0", "1#1"], (1, 1))


@BACKENDS
def test_a_flat_map_that_fails_can_end_the_run(backend: str) -> None:
    async def main() -> None:
        await Pipeline(flat_map(len), on_error="fail").collect(["ab"])

    with pytest.raises(RunStopped, match="stage 'len'"):
        anyio.run(main, **virtual(backend))


@BACKENDS
def test_what_a_flat_map_raises_takes_its_turn_among_the_children(backend: str) -> None:
    def expand(value: str) -> Iterator[str]:
        yield value
        raise ValueError("boom")

    async def slow(value: str) -> str:
        await anyio.sleep(1)
        return value

    pipe = Pipeline(flat_map(expand, max_children=1) | partition_by(len, map(slow)), max_in_flight=1)
    assert pipe.bounds.items == 3
    records = anyio.run(pipe.collect, ["a"], **virtual(backend))
    assert [record.status for record in records] == ["ok", "failed"]


@BACKENDS
def test_an_aborted_flat_map_stays_within_the_bound(backend: str) -> None:
    async def slow(value: str) -> str:
        await anyio.sleep(5)
        return value

    async def main() -> int:
        async with Pipeline(flat_map(list, max_children=1) | partition_by(len, map(slow)), max_in_flight=1).open(
            ["ab"]
        ) as run:
            await anyio.sleep(1)
            run.abort()
        return run.statistics().window.settled["cancelled"]

    assert anyio.run(main, **virtual(backend)) == 1


@BACKENDS
def test_members_of_one_group_in_one_batch_are_cancelled_once_each(backend: str) -> None:
    async def main() -> int:
        each = scatter("each", split=list, each=batch(map(list, name="body"), size=3, name="inner"))
        async with Pipeline(each).open(["ab"]) as run:
            await anyio.sleep(0.5)
        return run.statistics().window.settled["cancelled"]

    assert anyio.run(main, **virtual(backend)) == 1


@BACKENDS
def test_a_stall_is_seen_although_somebody_sleeps_for_ever(backend: str) -> None:
    async def main() -> None:
        await Pipeline(map(anyio.sleep)).collect([float("inf")])

    with pytest.raises(Stalled):
        anyio.run(main, **virtual(backend))


@BACKENDS
def test_a_submitter_whose_turn_comes_while_the_run_is_torn_down_is_told(backend: str) -> None:
    async def main() -> list[str]:
        told: list[str] = []

        async def ask(run: Run, value: int) -> None:
            try:
                told.append((await run.submit(value)).status)
            except RunClosed:
                told.append("closed")

        async def second(value: int) -> int:
            await anyio.sleep(1)
            return value

        async with anyio.create_task_group() as others:
            with anyio.CancelScope() as scope:
                async with Pipeline(map(second), max_in_flight=1).open() as run:
                    for value in range(3):
                        others.start_soon(ask, run, value)
                    await anyio.sleep(0.5)
                    scope.cancel()
                    await anyio.sleep(1)
        return sorted(told)

    assert anyio.run(main, **virtual(backend)) == ["cancelled", "closed", "closed"]
