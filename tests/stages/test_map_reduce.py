"""map_reduce: many parts of an item, folded into one value in the order of the parts, in little memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import anyio
import pytest

from pipeline import ConversationState, Cost, DefinitionError, Pipeline, Record, RunStopped, Usage, Visit
from pipeline.core.errors import Skip
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import agent, filter, loop, map, map_reduce, parallel, quorum
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left
from tests.stages.models import ScriptedModel

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def appended(total: list[object], value: object) -> list[object]:
    return [*total, value]


def folding(each: object, **options: object) -> Stage:
    return map_reduce(each, **{"split": range, "reduce": appended, "initial": [], "name": "book", **options})  # type: ignore[arg-type]


async def late_first(value: int) -> int:
    """The later a part comes, the sooner it is done."""
    await anyio.sleep(100 - value)
    return value


def failure(record: Record) -> tuple[str, str | None, str]:
    assert record.status == "failed"
    assert record.error is not None
    return record.error.type, record.error.stage, record.error.message


# -- the fold -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_outputs_are_folded_in_the_order_of_the_parts_whatever_the_timing() -> None:
    (record,) = await Pipeline(folding(map(late_first, concurrency=9))).collect([9])
    assert record.output == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert record.outputs == {"book": record.output}


@in_virtual_time
async def test_each_output_is_folded_in_as_soon_as_those_before_it_have_been() -> None:
    folds: list[tuple[float, int]] = []

    def note(total: int, value: int) -> int:
        folds.append((anyio.current_time(), value))
        return total + value

    async def uneven(value: int) -> int:
        await anyio.sleep([1, 5, 2, 6, 7][value])
        return value

    (record,) = await Pipeline(folding(map(uneven, concurrency=9), reduce=note, initial=0)).collect([5])
    assert folds == [(1, 0), (5, 1), (5, 2), (6, 3), (7, 4)]
    assert record.output == 10


@in_virtual_time
async def test_a_reduce_that_changes_its_total_changes_that_of_no_other_item() -> None:
    initial: dict[str, list[int]] = {"seen": []}

    def add(total: dict[str, list[int]], value: int) -> dict[str, list[int]]:
        total["seen"].append(value)
        return total

    pipe = Pipeline(folding(map(int), reduce=add, initial=initial), ordered=True)
    for _ in range(2):
        assert [record.output for record in await pipe.collect([2, 3])] == [{"seen": [0, 1]}, {"seen": [0, 1, 2]}]
    assert initial == {"seen": []}


@in_virtual_time
async def test_reduce_may_be_an_expression_over_total_and_value() -> None:
    (record,) = await Pipeline(folding(map(int), reduce="{{ total + [value * 2] }}")).collect([3])
    assert record.output == [0, 2, 4]
    (record,) = await Pipeline(folding(map(int), reduce=Expression("{{ total + value }}"), initial=5)).collect([3])
    assert record.output == 8


@in_virtual_time
async def test_no_parts_give_the_initial_total() -> None:
    (record,) = await Pipeline(folding(map(int), initial=["none"])).collect([0])
    assert (record.status, record.output) == ("ok", ["none"])


@in_virtual_time
async def test_an_expression_splits_and_templates_see_the_part() -> None:
    each = agent("each", model=ScriptedModel(), prompt="{{ part }} of {{ input.words | length }}")
    (record,) = await Pipeline(folding(each, split="{{ input.words }}")).collect([{"words": ["a", "b"]}])
    assert record.output == ["a of 2", "b of 2"]


@in_virtual_time
async def test_the_messages_of_the_parts_are_not_kept() -> None:
    seen: list[int] = []

    async def look(prompt: str, state: ConversationState) -> str:
        seen.append(len(state.messages))
        return prompt

    stages = agent("before", model=ScriptedModel()) | folding(agent("each", model=ScriptedModel()), split=str.split)
    await Pipeline(stages | look).collect(["a b c"])
    assert seen == [2]


@in_virtual_time
async def test_what_the_parts_used_is_in_the_record() -> None:
    async def ask(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=10, requests=1), Cost(0.5, "test"))
        return prompt

    (record,) = await Pipeline(folding(ask, split=str.split)).collect(["a b c"])
    assert (record.usage, record.cost) == (Usage(input_tokens=30, requests=3), Cost(1.5, "test"))


# -- what goes wrong ------------------------------------------------------------------------------------------------


def odd_fails(value: int) -> int:
    if value % 2:
        raise ValueError(f"{value} is odd")
    return value


@in_virtual_time
async def test_a_part_that_fails_fails_the_item_and_revokes_the_others() -> None:
    cancelled: list[int] = []

    async def work(value: int) -> int:
        try:
            await anyio.sleep(1 if value == 2 else 9)
        except BaseException:
            cancelled.append(value)
            raise
        raise ValueError(f"{value} breaks")

    async with Pipeline(folding(map(work, concurrency=9))).open([4]) as run:
        (record,) = [record async for record in run.results]
        assert anyio.current_time() == 1
    assert failure(record) == ("ValueError", "work", "2 breaks")
    assert (sorted(cancelled), record.outputs) == ([0, 1, 3], {})
    nothing_is_left(run)


@in_virtual_time
async def test_a_failed_record_keeps_no_outputs_that_depend_on_who_was_faster() -> None:
    async def work(value: int) -> int:
        await anyio.sleep(9 - value)
        return odd_fails(value + 1)

    (record,) = await Pipeline(folding(map(work, concurrency=9))).collect([4])
    assert (failure(record)[2], record.outputs) == ("3 is odd", {})


@in_virtual_time
async def test_a_part_that_is_skipped_is_left_out() -> None:
    (record,) = await Pipeline(folding(filter(lambda value: value % 2, name="odd"))).collect([6])
    assert (record.status, record.output, record.missing) == ("ok", [1, 3, 5], ())
    (record,) = await Pipeline(folding(map(odd_fails, on_error="skip"))).collect([6])
    assert (record.status, record.output) == ("ok", [0, 2, 4])
    (record,) = await Pipeline(folding(filter(lambda value: False, name="none"))).collect([6])
    assert (record.status, record.output) == ("ok", [])


@in_virtual_time
async def test_what_partial_joins_in_the_parts_lacked_is_named() -> None:
    both = parallel("both", join=quorum(1), a=map(int), b=map(odd_fails)) | map(lambda both: both["a"], name="a_of")
    (record,) = await Pipeline(folding(both)).collect([4])
    assert (record.status, record.output, record.missing) == ("partial", [0, 1, 2, 3], ("both.b", "both.b"))


@in_virtual_time
async def test_a_reduce_that_raises_fails_the_item_at_once() -> None:
    def add(total: int, value: int) -> int:
        if value == 1:
            raise ValueError("cannot add 1")
        return total + value

    async def work(value: int) -> int:
        await anyio.sleep(value)
        return value

    async with Pipeline(folding(map(work, concurrency=9), reduce=add, initial=0)).open([9]) as run:
        (record,) = [record async for record in run.results]
        assert anyio.current_time() == 1
    assert failure(record) == ("ValueError", "book", "cannot add 1")
    nothing_is_left(run)


@in_virtual_time
async def test_a_reduce_that_skips_skips_the_item() -> None:
    def add(total: int, value: int) -> int:
        raise Skip

    async with Pipeline(folding(map(int), reduce=add)).open([2]) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 1


@in_virtual_time
async def test_an_expression_that_cannot_be_reckoned_fails_the_item() -> None:
    (record,) = await Pipeline(folding(map(str), reduce="{{ total + value }}", initial=0)).collect([2])
    assert failure(record)[:2] == ("template", "book")


@in_virtual_time
async def test_on_error_is_asked_when_a_part_or_the_fold_fails() -> None:
    def breaks(total: object, value: object) -> object:
        raise ValueError("no")

    for stage in (folding(map(odd_fails), on_error="skip"), folding(map(int), reduce=breaks, on_error="skip")):
        async with Pipeline(stage).open([2]) as run:
            assert [record async for record in run.results] == []
        assert run.statistics().window.settled["skipped"] == 1
    with pytest.raises(RunStopped, match="1 is odd"):
        await Pipeline(folding(map(odd_fails), on_error="fail")).collect([2])


@pytest.mark.parametrize("value", ["text", {"a": 1}, 7])
async def test_a_split_that_gives_no_list_fails_the_item(value: object) -> None:
    (record,) = await Pipeline(folding(map(str), split=lambda _: value)).collect(["x"])
    assert failure(record)[:2] == ("NotAList", "book")


@in_virtual_time
async def test_a_split_that_raises_midway_fails_the_item_and_revokes_its_parts() -> None:
    def lazy(n: int) -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    async def never(value: int) -> int:
        await anyio.sleep_forever()
        return value

    async with Pipeline(folding(map(never), split=lazy)).open([3]) as run:
        (record,) = [record async for record in run.results]
    assert failure(record) == ("ValueError", "book", "no more")
    nothing_is_left(run)


@in_virtual_time
async def test_more_parts_than_max_children_fail_the_item_and_exactly_so_many_do_not() -> None:
    records = await Pipeline(folding(map(int), max_children=3), ordered=True).collect([3, 4])
    assert records[0].output == [0, 1, 2]
    text = "split gave more than max_children 3 parts; raise it"
    assert failure(records[1]) == ("TooManyChildren", "book", text)


@in_virtual_time
async def test_an_initial_total_that_cannot_be_copied_fails_the_item() -> None:
    class Once:
        copies = 0

        def __deepcopy__(self, memo: object) -> int:
            self.copies += 1
            if self.copies > 1:
                raise TypeError("not twice")
            return 0

    (record,) = await Pipeline(folding(map(int), initial=Once())).collect([2])
    assert failure(record) == ("TypeError", "book", "not twice")


# -- memory ---------------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize(("window", "max_open"), [(1, 1), (1, 4), (3, 4), (2, 7)])
def test_no_more_than_max_open_parts_of_an_item_are_alive_or_wait_to_be_folded_in(
    backend: str, window: int, max_open: int
) -> None:
    ahead: list[int] = []
    folded = [0] * 3

    async def lazy(item: int) -> AsyncIterator[tuple[int, int]]:
        for part in range(40):
            ahead.append(part - folded[item])
            yield item, part

    async def late(value: tuple[int, int]) -> tuple[int, int]:
        await anyio.sleep(50 - value[1])
        return value

    def add(total: int, value: tuple[int, int]) -> int:
        assert total == value[1]
        folded[value[0]] += 1
        return total + 1

    stage = folding(map(late, concurrency=99), split=lazy, reduce=add, initial=0, max_open=max_open)
    pipe = Pipeline(stage, max_in_flight=window)

    async def main() -> int:
        async with pipe.open(range(3)) as run:
            assert [record.output async for record in run.results] == [40] * 3
        nothing_is_left(run)
        return run.statistics().window.peak

    assert run_in(backend, 0, main) == pipe.bounds.items == window * (1 + max_open)
    assert max(ahead) == max_open  # one is pulled and waits for room


@in_virtual_time
async def test_ten_thousand_parts_are_pulled_as_they_are_worked_on() -> None:
    alive = most = 0

    async def lazy(item: int) -> AsyncIterator[int]:
        for part in range(10_000):
            yield part

    async def work(value: int) -> int:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        await anyio.lowlevel.checkpoint()
        alive -= 1
        return value

    stage = folding(map(work, concurrency=8), split=lazy, reduce=lambda total, value: total + value, initial=0)
    async with Pipeline(stage, max_in_flight=1).open([0]) as run:
        (record,) = [record async for record in run.results]
    assert record.output == sum(range(10_000))
    assert most <= 8
    assert run.statistics().window.peak <= 1 + 64


@in_virtual_time
async def test_an_item_that_is_slow_to_split_holds_up_no_other() -> None:
    async def lazy(item: str) -> AsyncIterator[str]:
        if item == "slow":
            await anyio.sleep(100)
        yield item

    async with Pipeline(folding(map(str), split=lazy)).open(["slow", "quick"]) as run:
        ended = [(anyio.current_time(), record.output) async for record in run.results]
    assert ended == [(0, ["quick"]), (100, ["slow"])]


@in_virtual_time
async def test_losers_that_are_slow_to_leave_are_within_the_bound() -> None:
    async def quick(value: int) -> int:
        await anyio.sleep(1)
        return value

    async def stubborn(value: int) -> int:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return value

    race = parallel("race", join="any", a=map(quick, concurrency=9), b=map(stubborn, concurrency=99))
    pipe = Pipeline(folding(race, max_open=2, max_children=6), max_in_flight=1)
    assert pipe.bounds.items == 1 + 2 * (1 + 2) + 4 * 2
    async with pipe.open([6, 6]) as run:
        assert [record.output async for record in run.results] == [[0, 1, 2, 3, 4, 5]] * 2
    nothing_is_left(run)


# -- ends of a run --------------------------------------------------------------------------------------------------


class Splitting:
    """An async iterator that waits between its parts, and notes that it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def __call__(self, n: int) -> AsyncIterator[int]:
        try:
            for part in range(n):
                yield part
                await anyio.sleep(1)
        finally:
            self.closed += 1


async def asking(prompt: str, state: ConversationState, visit: Visit) -> str:
    visit.admit_call()
    await anyio.sleep(2)
    return prompt


def ended_by(backend: str, act: Callable[..., object], after: float) -> tuple[list[Record], dict[str, int], int]:
    splitting = Splitting()

    async def main() -> tuple[list[Record], dict[str, int], int]:
        records: list[Record] = []
        tasks = len(anyio.get_running_tasks())
        pipe = Pipeline(map_reduce(asking, split=splitting, reduce=appended, initial=[]), max_in_flight=3)
        async with pipe.open([10, 10, 10, 10]) as run:
            await anyio.sleep(after)
            if act(run) is None:
                records = [record async for record in run.results]
        nothing_is_left(run)
        assert len(anyio.get_running_tasks()) == tasks
        return records, dict(run.statistics().window.settled), run.statistics().window.admitted

    records, settled, admitted = run_in(backend, 0, main)
    assert splitting.closed == admitted
    return records, settled, admitted


@BACKENDS
def test_a_drain_of_items_folds_the_parts_that_are_out(backend: str) -> None:
    records, settled, _ = ended_by(backend, lambda run: run.drain("items"), 2.5)
    assert [record.output for record in records] == [["0", "1", "2"]] * 3
    assert [record.missing for record in records] == [("map_reduce.rest",)] * 3
    assert settled["partial"] == 3


@BACKENDS
def test_a_drain_of_calls_cancels_what_needs_another_one(backend: str) -> None:
    records, settled, _ = ended_by(backend, lambda run: run.drain("calls"), 1.5)
    assert [record.output for record in records] == [["0", "1"]] * 3  # those had been asked already
    assert settled["partial"] == 3


@BACKENDS
def test_a_drain_of_calls_before_the_parts_are_asked_cancels_the_item(backend: str) -> None:
    async def main() -> dict[str, int]:
        async def patient(prompt: str, state: ConversationState, visit: Visit) -> str:
            await anyio.sleep(2)
            visit.admit_call()
            return prompt

        async with Pipeline(map_reduce(patient, split=range, reduce=appended, initial=[])).open([3, 3]) as run:
            await anyio.sleep(1)
            run.drain("calls")
            assert [record async for record in run.results] == []
        nothing_is_left(run)
        return dict(run.statistics().window.settled)

    assert run_in(backend, 0, main)["cancelled"] == 2


@BACKENDS
@pytest.mark.parametrize("after", [0, 0.5, 1.5, 3.5])
@pytest.mark.parametrize("how", ["abort", "leave"])
def test_ended_at_once_it_leaves_nothing(backend: str, after: float, how: str) -> None:
    _, settled, admitted = ended_by(backend, lambda run: run.abort() if how == "abort" else "left", after)
    assert settled["cancelled"] == admitted


@in_virtual_time
async def test_an_item_whose_time_is_up_closes_its_split() -> None:
    splitting = Splitting()
    pipe = Pipeline(folding(map(late_first, concurrency=9), split=splitting), item_timeout=4.5)
    async with pipe.open([99]) as run:
        (record,) = [record async for record in run.results]
    assert (failure(record)[0], splitting.closed) == ("item_timeout", 1)
    nothing_is_left(run)


@in_virtual_time
async def test_a_submitted_record_is_split_and_folded() -> None:
    async with Pipeline(folding(map(late_first))).open() as run:
        assert (await run.submit(3)).output == [0, 1, 2]


# -- definitions ----------------------------------------------------------------------------------------------------


async def slow_add(total: int, value: int) -> int:
    return total + value


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_open": 0}, "stage 'book', max_open: must be a whole number of at least 1, got 0"),
        ({"max_open": "4"}, "stage 'book', max_open: must be a whole number of at least 1, got '4'"),
        ({"max_children": 0}, "stage 'book', max_children: must be a whole number of at least 1, got 0"),
        ({"split": 5}, "stage 'book', split: must be a function or an expression, got 5"),
        ({"reduce": 5}, "stage 'book', reduce: must be a function or an expression, got 5"),
        (
            {"reduce": slow_add},
            "stage 'book', reduce: is called at once, and this one is async (make it a plain function)",
        ),
        (
            {"reduce": "{{ totl + value }}"},
            "stage 'book', reduce: uses 'totl'; available here: total, value (did you mean 'total'?)",
        ),
        (
            {"initial": (n for n in [1])},
            "stage 'book', initial: is copied for each item, and this one cannot be: cannot pickle 'generator' object",
        ),
        ({"split": "{{ nope }}"}, "stage 'book', split: uses 'nope'; available here: input, prompt, vars"),
        ({"on_error": "x"}, "stage 'book', on_error: must be one of dead_letter, skip, fail, or a function, got 'x'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(folding(map(int), **options))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    "around", [lambda stage: parallel("p", a=stage), lambda stage: loop(stage, until=bool, max_rounds=2)]
)
def test_inside_a_composite_it_is_refused_with_what_to_use_instead(around: Callable[[Stage], Stage]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(around(folding(map(int))))
    text = "map_reduce can stand on the top-level chain only (use scatter here, whose gather sees all outputs at once)"
    assert str(caught.value) == f"stage 'book': {text}"


def test_the_bound_counts_the_item_and_max_open_parts() -> None:
    assert Pipeline(folding(map(int)), max_in_flight=10).bounds.items == 10 * 65
    assert Pipeline(folding(map(int), max_children=5), max_in_flight=10).bounds.items == 10 * 6
