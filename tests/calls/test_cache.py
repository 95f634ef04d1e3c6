"""What is kept of answers, for whom, where, and in what file nobody believes."""

from __future__ import annotations

import json
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import DefinitionError, Pipeline
from pipeline.calls import cache as cache_file
from pipeline.calls.cache import open_cache, usual_place
from pipeline.calls.cached import Cached
from pipeline.calls.call import Call, CallIdentity, Reply, Request
from pipeline.calls.errors import CallError, ModelError
from pipeline.calls.flights import Flights
from pipeline.calls.schema import Schema
from pipeline.core.events import TextStreamed
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Cost, Usage
from stages import agent, resolve, vote
from tests.calls.asking import ask, cancelled_at_every_moment, failure, reply
from tests.calls.flaky import Server, served
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time


@dataclass
class Memory:
    """A cache in memory."""

    kept: dict[bytes, str] = field(default_factory=dict[bytes, str])

    async def get(self, key: bytes) -> str | None:
        await anyio.lowlevel.checkpoint()
        return self.kept.get(key)

    async def put(self, key: bytes, answer: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.kept[key] = answer


def cached(memory: Memory | None = None) -> Cached:
    return Cached(memory or Memory(), Flights(), ("here",), lambda request: [each.content for each in request.messages])


def saying(text: str, number: int = 0, **changed: Any) -> Request:
    return replace(ask(number), messages=(Message("user", text),), **changed)


def counting(*outcomes: Reply | CallError) -> tuple[Call, list[str]]:
    """A call that takes a second, and who made it."""
    made: list[str] = []

    async def call(request: Request) -> Reply:
        outcome = outcomes[min(len(made), len(outcomes) - 1)]
        made.append(request.visit.item_id)
        await anyio.sleep(1.0)
        if isinstance(outcome, CallError):
            raise outcome
        return outcome

    return call, made


@in_virtual_time
async def test_what_was_answered_is_not_asked_again_and_costs_nothing() -> None:
    whole = replace(
        reply("yes"),
        usage=Usage(10, 5, 3, 2, requests=1),
        model="m-1",
        request_id="r",
        tool_calls=(ToolCall("1", "look", "{}"),),
    )
    policy = cached()
    call, made = counting(whole)
    first = await policy(call)(saying("a"))
    again = await policy(call)(saying("a", 1))
    assert first == whole
    assert again == replace(whole, usage=Usage(10, 5, 3, 2), cost=Cost(0.0, "cache"), attempts=0, flags=("cached",))
    assert made == ["0"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (saying("a"), saying("b")),
        (saying("a"), saying("a", identity=CallIdentity("0", ("ask",), 1))),
        (saying("a"), saying("a", identity=CallIdentity("0", ("vote", "1", "ask"), 0))),
    ],
    ids=["body", "number of the call", "path"],
)
def test_what_an_answer_depends_on_is_in_its_key(one: Request, other: Request) -> None:
    assert cached().key_of(one) != cached().key_of(other)
    assert cached().key_of(one) == cached().key_of(saying("a", 77)) == cached().key_of(saying("a", stream=True))
    assert cached().key_of(one) != replace(cached(), scope=("elsewhere",)).key_of(one)


@pytest.mark.parametrize(
    ("answer", "schema", "kept"),
    [
        (reply("yes"), None, True),
        (reply("yes", ("hedged",)), None, True),
        (reply("yes", ("usage_missing",)), None, True),
        (replace(reply("yes"), finish_reason="tool_calls"), None, True),
        (replace(reply("yes"), finish_reason="length"), None, False),
        (replace(reply("yes"), finish_reason="refusal"), None, False),
        (replace(reply("yes"), finish_reason=None), None, False),
        (reply("yes", ("truncated",)), None, False),
        (reply("yes", ("usage_odd",)), None, False),
        (reply("yes", ("model_differs",)), None, False),
        (reply("yes", ("fallback",)), None, False),
        (reply('{"a": 1}'), {"a": "integer"}, True),
        (reply('{"a": "x"}'), {"a": "integer"}, False),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_only_whole_good_answers_are_kept(backend: str, answer: Reply, schema: object, kept: bool) -> None:
    @in_virtual_time
    async def ask_twice() -> None:
        memory = Memory()
        call, made = counting(answer)
        request = saying("a", schema=None if schema is None else Schema.of(schema))  # type: ignore[arg-type]
        for _ in range(2):
            await cached(memory)(call)(request)
        assert (len(memory.kept), len(made)) == ((1, 1) if kept else (0, 2))

    ask_twice(backend)


@in_virtual_time
async def test_a_failure_is_not_kept() -> None:
    policy = cached()
    call, made = counting(failure(), reply("yes"))
    with pytest.raises(CallError):
        await policy(call)(saying("a"))
    assert (await policy(call)(saying("a"))).flags == ()
    assert len(made) == 2


@in_virtual_time
async def test_equal_calls_at_the_same_time_are_made_once() -> None:
    policy, flags = cached(), []
    call, made = counting(reply("yes"))

    async def one(number: int) -> None:
        request = saying("a", number)
        flags.append((await policy(call)(request)).flags)
        visit = request.visit
        assert isinstance(visit, FakeVisit)
        assert (visit.slot_held, visit.given_back) == (True, number > 0)

    async with anyio.create_task_group() as tg:
        for number in range(20):
            tg.start_soon(one, number)
            await anyio.lowlevel.checkpoint()
    assert (made, anyio.current_time()) == (["0"], 1.0)
    assert Counter(flags) == {("cached",): 19, (): 1}


@in_virtual_time
async def test_when_the_call_that_is_waited_for_fails_the_next_is_made_and_the_others_wait_for_that() -> None:
    memory = Memory()
    policy, ends = cached(memory), Counter[str]()
    call, made = counting(failure(), reply("yes"))

    async def one(number: int) -> None:
        try:
            ends[(await policy(call)(saying("a", number))).text] += 1
        except CallError as error:
            ends[error.type] += 1

    async with anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(one, number)
    assert (ends, len(made), len(memory.kept)) == ({"connection": 1, "yes": 4}, 2, 1)
    assert anyio.current_time() == 2.0
    assert (await policy(call)(saying("a", 9))).flags == ("cached",)


@in_virtual_time
async def test_when_its_answer_is_not_one_to_keep_each_makes_its_own_and_good_answers_are_kept() -> None:
    memory = Memory()
    policy = cached(memory)
    call, made = counting(reply("cut", ("truncated",)), reply("yes"))
    async with anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(policy(call), saying("a", number))
    assert (len(made), anyio.current_time(), len(memory.kept)) == (5, 2.0, 1)  # all four at once


def test_calls_that_are_given_up_one_after_the_other_leave_no_trace() -> None:
    flights = Flights()
    for number in range(100):
        key = str(number).encode()
        assert flights.lead(key, FakeVisit())
        follower = flights.follow(key)
        flights.abandon(key)  # the follower is told to lead, does so, and is given up too
        assert follower.is_to_lead
        assert flights.lead(key, FakeVisit())
        flights.abandon(key)
    assert (flights._leaders, flights._waiting) == ({}, {})


@in_virtual_time
async def test_when_it_is_cancelled_the_next_one_takes_over() -> None:
    policy = cached()
    call, made = counting(reply("yes"))
    texts: list[str] = []

    async def one(number: int, scope: anyio.CancelScope) -> None:
        with scope:
            texts.append((await policy(call)(saying("a", number))).text)

    scopes = [anyio.CancelScope() for _ in range(4)]
    async with anyio.create_task_group() as tg:
        for number in range(4):
            tg.start_soon(one, number, scopes[number])
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.5)
        scopes[0].cancel()
    assert (made, texts, anyio.current_time()) == (["0", "1"], ["yes"] * 3, 1.5)


@in_virtual_time
async def test_whoever_is_cancelled_leaves_no_trace() -> None:
    policy = cached()

    async def call(request: Request) -> Reply:
        await anyio.sleep(0.5)
        return reply(flags=("truncated",))  # never kept

    async def scenario() -> None:
        async with anyio.create_task_group() as tg:
            for number in range(3):
                tg.start_soon(policy(call), saying("a", number))

    async def one_of_two() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(stays)
            await scenario()

    async def stays() -> None:
        with anyio.CancelScope(shield=True):
            await policy(call)(saying("a", 9))

    async def check() -> None:
        assert (policy.flights._leaders, policy.flights._waiting) == ({}, {})

    assert await cancelled_at_every_moment(scenario, check) > 16
    assert await cancelled_at_every_moment(one_of_two, check) > 16


@in_virtual_time
async def test_a_follower_that_was_just_told_to_lead_passes_it_on() -> None:
    """The leader and the first who waits are cancelled in the same turn."""
    policy = cached()
    call, made = counting(reply("yes"))
    scopes = [anyio.CancelScope() for _ in range(3)]
    texts: list[str] = []

    async def one(number: int) -> None:
        with scopes[number]:
            texts.append((await policy(call)(saying("a", number))).text)

    async with anyio.create_task_group() as tg:
        for number in range(3):
            tg.start_soon(one, number)
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.5)
        for scope in scopes[:2]:
            scope.cancel()
    assert (texts, made[-1], policy.flights._leaders, policy.flights._waiting) == (["yes"], "2", {}, {})


@in_virtual_time
async def test_a_stream_is_told_as_one_piece() -> None:
    policy = cached()
    call, _ = counting(reply("yes"))
    await policy(call)(saying("a"))
    for listening, stream, told in ((True, True, 1), (True, False, 0), (False, True, 0)):
        visit = FakeVisit(listening=listening)
        await policy(call)(saying("a", visit=visit, stream=stream))
        assert visit.events == [TextStreamed("0", ("ask",), 0, 1, "yes")][:told]


# -- the file --------------------------------------------------------------------------------------------------------


async def test_answers_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "calls.sqlite"
    async with open_cache(path) as answers:
        assert await answers.get(b"k") is None
        await answers.put(b"k", "täxt")
        await answers.put(b"k", "täxt 2")
        assert await answers.get(b"k") == "täxt 2"
        assert str(answers.statistics()) == f"cache {path}: 1 hit, 1 miss, 2 stored"
    async with open_cache(path) as answers, open_cache(path) as same:
        await answers.put(b"l", "x")
        assert (await same.get(b"k"), await same.get(b"l")) == ("täxt 2", "x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_other_files_of_it_are_for_the_owner_only_too(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    async with open_cache(path) as answers:
        await answers.put(b"k", "x")
        modes = modes_in(tmp_path)
    assert set(modes.values()) == {0o600}
    assert "calls.sqlite-wal" in modes


def modes_in(folder: Path) -> dict[str, int]:
    return {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}


async def test_what_is_too_long_or_cannot_be_written_is_not_kept_and_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_file, "LONGEST", 10_000)
    monkeypatch.setattr(cache_file, "LARGEST", 64 * 1024)
    async with open_cache(tmp_path / "c") as answers:
        await answers.put(b"a", "x" * 10_001)
        await answers.put(b"b", "\ud800")
        assert (answers.stored, answers.lost) == (0, 2)
        for number in range(20):
            await answers.put(bytes([number]), "x" * 9_000)
        assert 0 < answers.stored < 20
        assert answers.stored + answers.lost == 22
        assert await answers.get(bytes([0])) == "x" * 9_000
        assert str(answers.statistics()).endswith(f", {answers.lost} could not be written")


def spoiled(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """A file of ours that somebody has changed."""

    def spoil(path: Path) -> None:
        anyio.run(_one_answer, path)
        change(path)

    return spoil


async def _one_answer(path: Path) -> None:
    async with open_cache(path) as answers:
        await answers.put(b"k", "x" * 100)


def statement(sql: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(sql)
        connection.close()

    return spoiled(change)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("not a database, but some notes"), "it is no cache of this program"),
        (lambda path: path.write_bytes(b"SQLite format 3\x00" + bytes(2000)), "it is no cache of this program"),
        (lambda path: sqlite3.connect(path).execute("create table t (a)").connection.close(), "it is no cache"),
        (lambda path: path.mkdir(), "it is not a file"),
        (statement("pragma user_version = 2"), "it is of version 2, this program writes version 1"),
        (statement("create trigger t after insert on answers begin delete from answers; end"), "more than answers"),
        (statement("create view v as select 1"), "more than answers"),
        (statement("drop table answers; create table answers (key, answer)"), "more than answers"),
        (spoiled(lambda path: path.write_bytes(path.read_bytes()[:3000])), ""),
    ],
)
def test_a_file_that_is_not_a_sound_cache_is_refused_and_left_alone(
    tmp_path: Path, make: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "calls.sqlite"
    make(path)
    before = path.read_bytes() if path.is_file() else b""

    async def use() -> None:
        async with open_cache(path) as answers:
            await answers.get(b"k")

    with pytest.raises(ModelError, match=f"the cache .*calls.sqlite cannot be used: .*{said}.*; delete it, or name"):
        anyio.run(use)
    assert (path.read_bytes() if path.is_file() else b"") == before


async def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"the cache .*file/calls.sqlite cannot be opened"):
        async with open_cache(tmp_path / "file" / "calls.sqlite"):
            pass


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"text": 1, "finish_reason": "stop", "model": null, "request_id": null, "usage": {}, "tool_calls": []}',
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_entry_that_this_program_cannot_have_written_is_refused(backend: str, text: str) -> None:
    @in_virtual_time
    async def read() -> None:
        memory = Memory()
        policy = cached(memory)
        memory.kept[policy.key_of(saying("a"))] = text
        call, made = counting(reply())
        with pytest.raises(ModelError, match="the cache holds an answer that cannot be read"):
            await policy(call)(saying("a"))
        assert made == []

    read(backend)


async def test_values_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    async with open_cache(path):
        pass
    connection = sqlite3.connect(path)
    connection.execute("insert into answers values (?, ?)", (b"k", b"\xff\xfe"))
    connection.commit()
    connection.close()
    async with open_cache(path) as answers:
        with pytest.raises(ModelError, match="an answer in it is no text"):
            await answers.get(b"k")


# -- with whole models -----------------------------------------------------------------------------------------------


async def test_a_second_run_makes_no_request_and_says_so_in_its_records(tmp_path: Path) -> None:
    server = Server(latency=lambda number: 0.0)
    model = served(server, cache=str(tmp_path / "c"))
    pipe = Pipeline(agent("ask", model=model), ordered=True)
    first = await pipe.collect(["a", "b", "a"])
    again = await pipe.collect(["a", "b", "a"])
    assert (server.requests, server.prompts) == (2, {"a": 1, "b": 1})
    assert [record.output for record in again] == [record.output for record in first] == ["re: a", "re: b", "re: a"]
    assert [record.usage for record in again] == [Usage()] * 3
    assert [record.cost for record in again] == [None] * 3


async def test_who_pays_and_what_gateways_choose_by_have_answers_of_their_own_and_a_new_secret_has_not(
    tmp_path: Path,
) -> None:
    server = Server(latency=lambda number: 0.0)
    options: list[dict[str, Any]] = [
        {},
        {"organization": "one"},
        {"organization": "two"},
        {"api_key_env": "ANOTHER_KEY"},
        {"headers": {"X-Provider": "one", "X-Api-Key": "first secret"}},
        {"headers": {"x-provider": "one", "x-api-key": "second secret"}},
        {"headers": {"X-Provider": "two"}},
        {"headers": {"x-portkey-provider": "one"}},
    ]
    requests: list[int] = []
    for each in options:
        model = served(server, cache=str(tmp_path / "c"), **each)
        await Pipeline(agent("ask", model=model)).collect(["a"])
        requests.append(server.requests)
    assert requests == [1, 2, 3, 4, 5, 5, 6, 7]


async def test_the_votes_on_one_prompt_stay_independent(tmp_path: Path) -> None:
    server = Server(latency=lambda number: 0.0)
    asks = agent("ask", model=served(server, cache=str(tmp_path / "c")))
    pipe = Pipeline(vote("v", asks, samples=3))
    await pipe.collect(["a"])
    assert server.requests == 3


async def test_a_run_with_a_cache_shows_it(tmp_path: Path) -> None:
    pipe = Pipeline(agent("ask", model=resolve("sim/echo", cache=str(tmp_path / "c"))), ordered=True)
    async with pipe.open(["a", "b", "a"]) as run:
        assert [record.output async for record in run.results] == ["a", "b", "a"]
        shown = [str(limit) for limit in run.statistics().limits]
    assert [line for line in shown if line.startswith(f"cache {tmp_path / 'c'}: 0 hits, 2 misses")]


async def test_simulated_models_of_different_seeds_share_no_answers(tmp_path: Path) -> None:
    outputs: list[object] = []
    for seed in (1, 2, 1):
        model = resolve("sim/x", seed=seed, cache=str(tmp_path / "c"))
        outputs += [record.output for record in await Pipeline(agent("ask", model=model)).collect(["a"])]
    assert outputs[0] == outputs[2] != outputs[1]


def test_the_usual_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert usual_place() == tmp_path / "penstock" / "calls.sqlite"


@pytest.mark.parametrize("wrong", ["", 7, None])
def test_a_cache_is_true_or_a_path(wrong: Any) -> None:
    if wrong is None:  # as every option that is left out
        assert resolve("sim/echo", cache=wrong).cache is False
        return
    with pytest.raises(DefinitionError, match="give true or false, or the path of a file"):
        resolve("sim/echo", cache=wrong)


def test_entries_are_plain_json(tmp_path: Path) -> None:
    async def write() -> None:
        pipe = Pipeline(agent("ask", model=resolve("sim/echo", cache=str(tmp_path / "c"))))
        await pipe.collect(["hello"])

    anyio.run(write)
    connection = sqlite3.connect(tmp_path / "c")
    ((text,),) = connection.execute("select answer from answers").fetchall()
    connection.close()
    assert json.loads(text)["text"] == "hello"
