"""What functions, custom agents and tools gave is not asked for again, from every prefix of the journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from pipeline.core.pipeline import Pipeline
from pipeline.core.state import ConversationState, Message
from pipeline.core.visit import Visit
from stages import agent, batch, filter, flat_map, loop, map, partition_by, route, scatter
from stages.models.simulated import SimulatedModel
from tests.durability.prefixes import Entry, Memory, check_prefixes, played, prefixes
from tests.engine.schedules import run_in

EVEN = SimulatedModel(model="echo", latency=0.2)
PROMPTS = ("one", "two", "four")
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def asks(name: str, prompt: str = "{{ prompt }}") -> Any:
    return agent(name, model=EVEN, prompt=f"{name}: {prompt}")


class Book:
    """Writes down what a function was asked, once it has said something."""

    def __init__(self, says: Callable[[Any], Any] = lambda value: f"said of {value}", seconds: float = 0.1) -> None:
        self.asked: list[Any] = []
        self.says = says
        self.seconds = seconds

    async def __call__(self, value: object) -> Any:
        await anyio.sleep(self.seconds)
        self.asked.append(value)
        return self.says(value)


def check_asked_once(
    pipeline: Pipeline, book: Book, fact: str, backend: str, inputs: Sequence[Any] = PROMPTS, **options: Any
) -> None:
    """Resume from every prefix: what is written there is not asked again, and all else once."""
    first = run_in(backend, 0, played, pipeline, inputs, Memory())
    expected = len(book.asked)
    assert expected == len(first.named("fact", fact)) > 0
    for length in prefixes(first.sequence):
        book.asked.clear()
        memory = run_in(backend, 0, played, pipeline, inputs, Memory(tuple(first.sequence[:length])))
        assert memory.lines() == first.lines()
        known = sum(entry.kind == "fact" and entry.name[1] == fact for entry in memory.past)
        settled = len([entry for entry in memory.past if entry.kind == "settled"])
        assert len(book.asked) <= expected - known, (length, settled)
        assert len(memory.named("fact", fact)) == expected


@BACKENDS
def test_a_function_that_is_not_pure_is_called_once(backend: str) -> None:
    book = Book()
    check_asked_once(Pipeline(map(book, name="m", pure=False) | asks("a", "{{ m }}")), book, "value", backend)


@BACKENDS
def test_a_filter_that_is_not_pure_is_called_once(backend: str) -> None:
    book = Book(lambda value: "" if value == "two" else value)
    check_asked_once(Pipeline(asks("a") | filter(book, name="f", pure=False) | asks("b")), book, "value", backend)


@BACKENDS
def test_a_blocking_function_that_is_not_pure_is_called_once(backend: str) -> None:
    book = Book()

    def blocks(value: object) -> str:
        book.asked.append(value)
        return f"said of {value}"

    stages = map(blocks, name="m", blocking=True, pure=False) | asks("a", "{{ m }}")
    check_asked_once(Pipeline(stages), book, "value", backend)


@BACKENDS
def test_an_agent_of_ones_own_is_asked_once_and_its_messages_are_kept(backend: str) -> None:
    book = Book()

    async def thinks(prompt: str, state: ConversationState) -> Any:
        return {"thought": await book(prompt)}

    stages = agent(thinks) | agent("a", model=EVEN, prompt="{{ thinks.thought }}", conversation=True)
    check_asked_once(Pipeline(stages), book, "value", backend)


@BACKENDS
def test_what_an_agent_of_ones_own_has_asked_a_model_is_charged_again(backend: str) -> None:
    book = Book()

    @dataclass(frozen=True)
    class Lead:
        name: str = "lead"

        def resources(self) -> tuple[SimulatedModel, ...]:
            return (EVEN,)

        async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
            reply = await visit.call(EVEN, [Message("user", prompt)])
            return str(await book(reply.text))

    check_asked_once(Pipeline(agent(Lead()) | asks("a", "{{ lead }}")), book, "value", backend)


@BACKENDS
def test_an_agent_that_is_pure_is_asked_again(backend: str) -> None:
    book = Book()

    async def thinks(prompt: str, state: ConversationState) -> Any:
        return await book(prompt)

    pipeline = Pipeline(agent(thinks, pure=True) | asks("a", "{{ thinks }}"))
    check_prefixes(pipeline, PROMPTS, backend)
    first = run_in(backend, 0, played, pipeline, PROMPTS, Memory())
    assert first.named("fact", "value") == []


@BACKENDS
def test_an_answer_that_is_no_plain_json_is_asked_for_again_and_counted(backend: str) -> None:
    @dataclass(frozen=True)
    class Thought:
        about: str

    remarks: list[Any] = []

    async def thinks(prompt: str, state: ConversationState) -> Any:
        return Thought(prompt)

    async def play(memory: Memory) -> Memory:
        async with pipeline.open(list(PROMPTS), journal=memory) as run:
            async for _ in run.results:
                pass
            remarks.append(dict(run.statistics().remarks))
        return memory

    pipeline = Pipeline(agent(thinks) | asks("a", "{{ thinks.about }}"))
    first = run_in(backend, 0, play, Memory())
    assert first.named("fact", "value") == []
    assert remarks == [{"not_kept": 3}]
    check_prefixes(pipeline, PROMPTS, backend)


@BACKENDS
def test_a_route_is_chosen_once(backend: str) -> None:
    book = Book(lambda value: len(value) % 2)
    stages = route({"1": asks("odd"), "0": asks("even")}, by=book, name="r") | asks("after")
    check_asked_once(Pipeline(stages), book, "label", backend)


@BACKENDS
def test_a_classifier_that_failed_stays_failed_when_that_chose_the_default(backend: str) -> None:
    calls: list[object] = []

    def by(value: object) -> str:
        calls.append(value)
        if len(calls) == 1:
            raise OSError("not now")
        return "a"

    pipeline = Pipeline(route({"a": asks("a")}, by=by, name="r", default=asks("d"), on_error="default"))
    first = run_in(backend, 0, played, pipeline, ["one"], Memory())
    lines = first.lines()
    (line,) = lines.values()
    assert b'"output":"d: one"' in line
    labelled = next(n for n, entry in enumerate(first.sequence, 1) if entry.name[1] == "label")
    resumed = run_in(backend, 0, played, pipeline, ["one"], Memory(tuple(first.sequence[:labelled])))
    assert (resumed.lines(), len(calls)) == (lines, 1)


@BACKENDS
@pytest.mark.parametrize("blocks", [False, True])
def test_the_end_of_a_loop_is_decided_once(blocks: bool, backend: str) -> None:
    book = Book(lambda value: len(value) > 12)

    def until(value: str) -> bool:
        book.asked.append(value)
        return len(value) > 12

    body = map(lambda value: f"{value} more", name="more") | agent("a", model=EVEN, prompt="{{ more }}")
    stages = loop(body, until=until if blocks else book, max_rounds=4)
    check_asked_once(Pipeline(stages), book, "until", backend)


@BACKENDS
def test_keys_and_weights_are_asked_once(backend: str) -> None:
    book = Book(len)
    check_asked_once(Pipeline(partition_by(book, asks("a"))), book, "key", backend)
    book = Book(len)
    stages = batch(map(lambda parts: [*parts], name="same"), size=30, weight=book, within=0.5) | asks("a")
    check_asked_once(Pipeline(stages), book, "weight", backend)


@BACKENDS
def test_a_function_that_was_not_pure_and_raised_is_called_again(backend: str) -> None:
    calls: list[object] = []

    def fails_once(value: object) -> object:
        calls.append(value)
        if len(calls) == 1:
            raise OSError("not now")
        return value

    pipeline = Pipeline(map(fails_once, name="m", pure=False))
    first = run_in(backend, 0, played, pipeline, ["one"], Memory())
    assert first.named("fact") == [(1, ('["m"]', "failed", 0))]
    resumed = run_in(backend, 0, played, pipeline, ["one"], Memory(tuple(first.sequence[:1])))
    assert b'"status":"failed"' in next(iter(first.lines().values()))
    assert b'"status":"ok"' in next(iter(resumed.lines().values()))


# -- what an item is split into ---------------------------------------------------------------------------------------


class Splitter:
    """Gives other parts each time it is called, unless it is told to begin alike."""

    def __init__(self, *lots: Sequence[Any], waits: float | None = None) -> None:
        self.lots = lots
        self.calls = 0
        self.waits = waits

    def __call__(self, value: object) -> Any:
        lot = self.lots[min(self.calls, len(self.lots) - 1)]
        self.calls += 1
        return list(lot) if self.waits is None else self._later(lot)

    async def _later(self, lot: Sequence[Any]) -> Any:
        for part in lot:
            await anyio.sleep(self.waits or 0)
            yield part


def resume(pipeline: Pipeline, backend: str, past: Sequence[Entry]) -> Memory:
    return run_in(backend, 0, played, pipeline, ["one"], Memory(tuple(past)))


def after(memory: Memory, fact: str, count: int = 1) -> list[Entry]:
    """The journal up to the entry that is number `count` of its kind."""
    places = [n for n, entry in enumerate(memory.sequence, 1) if entry.kind == "fact" and entry.name[1] == fact]
    return memory.sequence[: places[count - 1]]


@BACKENDS
def test_a_list_is_split_once(backend: str) -> None:
    split = Splitter("abc", "xyz")
    pipeline = Pipeline(scatter("s", split=split, each=asks("a", "{{ part }}")))
    first = resume(pipeline, backend, ())
    resumed = resume(pipeline, backend, after(first, "split"))
    assert (resumed.lines(), split.calls) == (first.lines(), 1)


@BACKENDS
def test_an_iterator_that_was_interrupted_goes_on_behind_the_parts_that_are_known(backend: str) -> None:
    split = Splitter("abc", waits=0.5)
    pipeline = Pipeline(scatter("s", split=split, each=asks("a", "{{ part }}")))
    first = resume(pipeline, backend, ())
    resumed = resume(pipeline, backend, after(first, "part", 2))
    assert (resumed.lines(), split.calls) == (first.lines(), 2)


@BACKENDS
def test_an_iterator_that_gives_other_parts_than_those_that_were_worked_on_fails_the_item(backend: str) -> None:
    split = Splitter("abc", "axc", waits=0.5)
    pipeline = Pipeline(scatter("s", split=split, each=asks("a", "{{ part }}")))
    first = resume(pipeline, backend, ())
    (line,) = resume(pipeline, backend, after(first, "part", 2)).lines().values()
    text = (
        "split gave other parts than before the run was interrupted, and those were worked on: "
        r"part 1 is \"x\", and was \"b\""
    )
    assert f'"type":"SplitChanged","stage":"s","message":"{text}"'.encode() in line


@BACKENDS
def test_parts_of_which_nothing_was_made_are_asked_for_anew(backend: str) -> None:
    split = Splitter("abc", "xy", waits=0.5)
    pipeline = Pipeline(scatter("s", split=split, each=asks("a", "{{ part }}")))
    first = resume(pipeline, backend, ())
    resumed = resume(pipeline, backend, after(first, "part", 1))
    (line,) = resumed.lines().values()
    assert b'"output":["a: x","a: y"]' in line
    again = resume(pipeline, backend, after(resumed, "split"))
    assert (again.lines(), split.calls) == (resumed.lines(), 2)


@BACKENDS
def test_objects_are_made_again_and_compared(backend: str) -> None:
    @dataclass(frozen=True)
    class Question:
        text: str

    one, other = [Question("a"), Question("b")], [Question("a"), Question("c")]
    split = Splitter(one, one, other)
    pipeline = Pipeline(scatter("s", split=split, each=asks("a", "{{ part.text }}")))
    first = resume(pipeline, backend, ())
    assert resume(pipeline, backend, after(first, "split")).lines() == first.lines()
    (line,) = resume(pipeline, backend, after(first, "split")).lines().values()
    assert b'"type":"SplitChanged"' in line


@BACKENDS
@pytest.mark.parametrize("waits", [None, 0.1])
def test_a_part_without_a_json_form_fails_the_item_and_says_where_it_is(waits: float | None, backend: str) -> None:
    split = Splitter([{"a": 1}, {"b": [object()]}], waits=waits)
    pipeline = Pipeline(scatter("s", split=split, each=map(str, name="text")))
    (line,) = resume(pipeline, backend, ()).lines().values()
    assert b'"type":"NotJson","stage":"s","message":"split[1].b[0]: ' in line
    (record,) = run_in(backend, 0, pipeline.collect, ["one"])
    assert record.status == "ok", "without a journal nothing is written"


@BACKENDS
def test_what_broke_a_split_breaks_it_again_without_asking(backend: str) -> None:
    calls: list[object] = []

    async def breaks(value: object) -> Any:
        calls.append(value)
        yield "a"
        await anyio.sleep(0.5)
        raise ValueError("no more")

    pipeline = Pipeline(flat_map(breaks, name="f") | asks("a", "{{ f }}"))
    first = resume(pipeline, backend, ())
    resumed = resume(pipeline, backend, after(first, "split"))
    assert (resumed.lines(), len(calls)) == (first.lines(), 1)
    assert sorted(first.lines()) == ["r0#0", "r0#1"]
