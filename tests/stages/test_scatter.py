"""Scatter: parts that are worked on in parallel and joined again, by part and not by time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from pipeline import DefinitionError, Pipeline
from stages import agent, filter, first, map, quorum, scatter
from tests.stages.models import ScriptedModel


def numbers(n: int) -> list[int]:
    return list(range(n))


async def slow_first(n: int) -> int:
    for _ in range(10 - n):
        await anyio.lowlevel.checkpoint()
    return n * 10


def refuse_odd(n: int) -> int:
    if n % 2:
        raise ValueError(f"{n} is odd")
    return n


async def test_outputs_stand_in_the_order_of_the_parts_whatever_the_timing() -> None:
    pipe = Pipeline(scatter("dig", split=numbers, each=map(slow_first, concurrency=8)))
    (record,) = await pipe.collect([8])
    assert record.output == [0, 10, 20, 30, 40, 50, 60, 70]
    assert record.outputs == {"dig": record.output}


async def test_no_parts_give_an_empty_list() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(str))).collect([0])
    assert (record.status, record.output) == ("ok", [])


async def test_templates_see_the_part_inside_and_the_parts_in_gather() -> None:
    worker = agent("worker", model=ScriptedModel(), prompt="<{{ part }} of {{ prompt }}>")
    writer = agent("writer", model=ScriptedModel(), prompt="{{ parts | join('+') }}")
    pipe = Pipeline(scatter("dig", split=str.split, each=worker, gather=writer))
    (record,) = await pipe.collect(["a b"])
    assert record.output == "<a of a b>+<b of a b>"
    assert record.outputs == {"dig": record.output}


async def test_an_expression_splits_by_what_an_agent_planned() -> None:
    plan = agent("plan", model=ScriptedModel(lambda _: {"questions": ["q1", "q2"]}), output={"questions": ["string"]})
    pipe = Pipeline(plan | scatter("dig", split="{{ plan.questions }}", each=agent("w", model=ScriptedModel())))
    (record,) = await pipe.collect(["x"])
    assert record.output == ["q1", "q2"]


async def test_a_quorum_that_is_met_names_the_missing_parts() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(refuse_odd), join=quorum(2))).collect([4])
    assert (record.status, record.output, record.missing) == ("partial", [0, 2], ("dig.1", "dig.3"))


async def test_a_quorum_that_cannot_be_met_says_planned_and_needed() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(refuse_odd), join=quorum(3))).collect([4])
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.message.startswith("planned 4, needed 3, ")


async def test_fewer_parts_than_needed_say_so_even_when_all_are_ok() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(str), join=first(3))).collect([2])
    assert record.error is not None
    assert record.error.message.startswith("planned 2, needed 3, ")


async def test_all_fails_with_the_first_failure_and_keeps_what_was_finished() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(refuse_odd))).collect([2])
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.stage, record.error.message) == ("refuse_odd", "1 is odd")
    assert record.outputs == {"dig": [0]}


async def test_skipped_parts_are_finished_without_an_output() -> None:
    pipe = Pipeline(scatter("dig", split=numbers, each=filter(lambda n: n % 2 == 0, name="even")))
    (record,) = await pipe.collect([5])
    assert (record.status, record.output, record.missing) == ("ok", [0, 2, 4], ())


async def test_more_parts_than_max_children_fail_the_item() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(str), max_children=3)).collect([4])
    assert record.error is not None
    assert (record.status, record.error.type) == ("failed", "TooManyChildren")
    assert record.error.message == ("split gave more than max_children 3 parts; raise it, or set on_excess: truncate")


async def test_more_parts_than_max_children_are_left_out_when_that_is_said() -> None:
    pipe = Pipeline(scatter("dig", split=numbers, each=map(str), max_children=3, on_excess="truncate"))
    (record,) = await pipe.collect([4])
    assert (record.status, record.output, record.missing) == ("partial", ["0", "1", "2"], ("dig.rest",))


async def test_exactly_max_children_are_no_excess() -> None:
    (record,) = await Pipeline(scatter("dig", split=numbers, each=map(str), max_children=3)).collect([3])
    assert (record.status, record.output) == ("ok", ["0", "1", "2"])


async def test_max_open_pauses_the_split() -> None:
    asked: list[int] = []
    finished: list[int] = []

    def lazy(n: int) -> Iterator[int]:
        for k in range(n):
            asked.append(len(finished))
            yield k

    async def work(k: int) -> int:
        await anyio.lowlevel.checkpoint()
        finished.append(k)
        return k

    pipe = Pipeline(scatter("dig", split=lazy, each=map(work, concurrency=8), max_open=2))
    (record,) = await pipe.collect([6])
    assert record.output == [0, 1, 2, 3, 4, 5]
    # The k-th part is taken from the split when at most two of those before it were still open, one more in hand.
    assert all(k - done <= 3 for k, done in enumerate(asked))


async def test_a_split_may_be_an_async_iterator_and_is_closed() -> None:
    closed: list[bool] = []

    async def lazy(n: int) -> AsyncIterator[int]:
        try:
            for k in range(n):
                await anyio.lowlevel.checkpoint()
                yield k
        finally:
            closed.append(True)

    pipe = Pipeline(scatter("dig", split=lazy, each=map(slow_first), join=first(2)))
    (record,) = await pipe.collect([1000])
    assert record.output == [0, 10]
    assert closed == [True]


@pytest.mark.parametrize("value", ["text", {"a": 1}, 7])
async def test_a_split_that_gives_no_list_fails_the_item(value: object) -> None:
    (record,) = await Pipeline(scatter("dig", split=lambda _: value, each=map(str))).collect(["x"])
    assert record.error is not None
    assert record.error.type == "NotAList"
    assert record.error.stage == "dig"


async def test_a_split_that_raises_fails_the_item_and_takes_its_children_along() -> None:
    def lazy(n: int) -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    async def never(n: int) -> int:
        await anyio.sleep_forever()
        return n

    (record,) = await Pipeline(scatter("dig", split=lazy, each=map(never))).collect([3])
    assert record.error is not None
    assert (record.status, record.error.message) == ("failed", "no more")


def test_the_bound_counts_the_item_and_its_parts() -> None:
    pipe = Pipeline(scatter("dig", split=numbers, each=map(str), max_children=10), max_in_flight=4)
    assert pipe.bounds.items == 44


def test_max_open_lowers_the_bound() -> None:
    pipe = Pipeline(scatter("dig", split=numbers, each=map(str), max_children=10, max_open=2), max_in_flight=4)
    assert pipe.bounds.items == 12


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_children": 0}, "must be a whole number of at least 1, got 0"),
        ({"join": quorum(5), "max_children": 4}, r"quorum\(5\) cannot be reached with 4 members"),
        ({"on_timeout": "partial"}, "has no effect without a timeout"),
        ({"timeout": 0}, "must be a number of seconds above 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError, match=text):
        Pipeline(scatter("dig", split=numbers, each=map(str), **options))  # type: ignore[arg-type]
