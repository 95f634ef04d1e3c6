"""The table of faults, through the real SDK and a whole run: class, requests, usage and record, in every phase.

Rows 9, 39 and 40, and 59 and 60, which are of stages, stand at the end. Row 41 is in tests/stages/test_tools.py; 61, 62
and 63 in test_every_place.py, test_processes.py and test_watchdog.py of tests/engine; 58 is of a function that is never
called. What sockets alone do wrong is in tests/models/test_streams.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.core.errors import RunStopped
from pipeline.core.events import AttemptEnded, CallEnded, TextStreamed
from pipeline.core.record import Record
from pipeline.core.state import Message
from pipeline.core.usage import NO_USAGE, Usage
from pipeline.core.virtual import virtual
from stages import agent
from stages import map as apply
from stages.models import OpenAIModel, resolve, stream_reader
from tests.calls.fault_rows import GOOD_STREAM, GOODS, KNOWN, LOST, PROMPT, Case, body, cases, completion, status
from tests.calls.fault_rows import stream as events_sent
from tests.calls.streams import answered
from tests.calls.visits import FakeVisit
from tests.servers.scripted import Ledger, ScriptedModel, Sent

CASES = list(cases())
BACKENDS = ("asyncio", "trio")
RESPONSES_DIFFER = range(29, 51)  #: the rows of what an answer looks like, which each API has its own way for
ATTEMPTS = {"retry": 4, "ambiguous": 2}  #: of a fault that stays


@dataclass
class Seen:
    """What one run left behind."""

    record: Record
    ledger: Ledger
    stopped: bool  #: the whole run was stopped by it
    attempts: list[AttemptEnded] = field(default_factory=list[AttemptEnded])
    calls: list[CallEnded] = field(default_factory=list[CallEnded])
    told: dict[int, str] = field(default_factory=dict[int, str])


def defined(**options: object) -> OpenAIModel:
    definition = resolve("vllm/m-1", base_url="https://m.test/v1", **options)
    assert isinstance(definition, OpenAIModel)
    return definition


async def ran(script: Sequence[Sent], stream: bool, case: Case, api: str = "chat") -> Seen:
    """Run one item through one agent whose server follows `script`."""
    model = ScriptedModel(defined(api=api, **case.model), tuple(script))
    events: list[Any] = []
    options: dict[str, Any] = {"prompt": "{{ prompt }}", "stream": stream, **case.agent}
    pipe = Pipeline(agent("ask", model=model, **options))
    records: list[Record] = []
    stopped = False
    try:
        async with pipe.open([PROMPT], on_event=events.append) as run:
            records += [record async for record in run.results]
    except RunStopped:
        stopped = True
    (record,) = records
    seen = Seen(record, model.ledger, stopped)
    for event in events:
        match event:
            case AttemptEnded():
                seen.attempts.append(event)
            case CallEnded():
                seen.calls.append(event)
            case TextStreamed():
                seen.told[event.attempt] = seen.told.get(event.attempt, "") + event.text
            case _:
                pass
    return seen


def modes(case: Case) -> tuple[bool, ...]:
    return (False, True) if case.stream is None else (case.stream,)


def check_use(seen: Seen, each: Sequence[Usage]) -> None:
    """Every attempt is in the ledger, in the events and in the record, each with what is known of it."""
    assert len(seen.ledger.bodies) == len(each)
    assert [attempt.usage for attempt in seen.attempts if attempt.usage is not None] == list(each)
    assert seen.record.usage == sum(each, NO_USAGE)
    assert seen.ledger.open == 0


def check_failed(seen: Seen, case: Case, attempts: int) -> None:
    error = seen.record.error
    assert error is not None
    assert (seen.record.status, error.type, error.attempts) == ("failed", case.type, attempts)
    assert seen.stopped == (case.fault == "stop")
    assert error.retryable == (case.fault in ("retry", "ambiguous", "park"))
    assert seen.attempts[-1].outcome == case.type or case.agent


def check_ok(seen: Seen, text: str, flags: tuple[str, ...], stream: bool) -> None:
    assert (seen.record.status, seen.record.output, seen.record.error) == ("ok", text, None)
    assert [call.flags for call in seen.calls] == [flags]
    assert seen.told.get(len(seen.ledger.bodies), "") == (text if stream else "")


async def check_once(case: Case, stream: bool, before: tuple[Sent, ...], api: str = "chat") -> None:
    """The fault comes once, as the first attempt or after one that failed; then the server is well."""
    seen = await ran((*before, case.sent, GOODS[api, stream]), stream, case, api)
    earlier = [LOST] * len(before)
    if case.fault is None:
        check_use(seen, [*earlier, case.usage])
        check_ok(seen, case.text, case.flags, stream)
    elif case.fault in ATTEMPTS:
        check_use(seen, [*earlier, case.usage, KNOWN])
        check_ok(seen, "ok", (), stream)
        first, second = seen.ledger.times[-2:]
        assert second - first >= (case.wait or 0.0)
    else:
        check_use(seen, [*earlier, case.usage])
        check_failed(seen, case, len(before) + 1)


async def check_always(case: Case, stream: bool) -> None:
    """The fault never goes away: so many attempts as its class has, and never one more."""
    seen = await ran((case.sent,), stream, case)
    if case.fault is None:
        return
    check_use(seen, [case.usage] * ATTEMPTS.get(case.fault, 1))
    check_failed(seen, case, ATTEMPTS.get(case.fault, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_row_of_the_table_holds_in_every_phase(backend: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_reader, "MAX_ANSWER", 20_000)

    async def check() -> None:
        for stream in modes(case):
            await check_once(case, stream, ())
            await check_once(case, stream, (status(500),))
            await check_always(case, stream)
            if case.stream is None and case.row not in RESPONSES_DIFFER:
                await check_once(case, stream, (), "responses")

    anyio.run(check, **virtual(backend))


def test_every_row_that_concerns_a_call_is_in_the_table() -> None:
    elsewhere = {9, 39, 40, 41, 58, *range(59, 64)}
    assert {case.row for case in CASES} == set(range(1, 65)) - elsewhere


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_row_9_an_attempt_that_is_cancelled_is_a_request_that_may_be_paid(backend: str, stream: bool) -> None:
    async def check() -> None:
        begun = GOOD_STREAM.parts[:1]
        model = ScriptedModel(defined(), (Sent(parts=begun, kind="text/event-stream", stalls=True),))
        visit = FakeVisit()
        async with model.open() as chat:
            with anyio.move_on_after(1.0):
                await chat.call(visit, [Message("user", PROMPT)], stream=stream)
        assert visit.charges == [(LOST, None)]
        assert (len(model.ledger.bodies), model.ledger.open) == (1, 0)

    anyio.run(check, **virtual(backend))


def saying(text: str, stream: bool) -> Sent:
    return events_sent(*answered(text)) if stream else body(completion({"content": text}))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "wrong", ["no JSON", '{"a": "x"}', '```json\n{"a": 1}\n```', '{"a": 1} so', '{"a": NaN}', '{"a": 1, "a": 1}']
)
def test_rows_39_and_40_an_answer_that_does_not_fit_is_sent_back_once(backend: str, stream: bool, wrong: str) -> None:
    case = Case(39, wrong, saying(wrong, stream), "fail", "schema", KNOWN, agent={"output": {"a": "integer"}})

    async def check() -> None:
        seen = await ran((case.sent, saying('{"a": 1}', stream)), stream, case)
        check_use(seen, [KNOWN, KNOWN])
        assert (seen.record.status, seen.record.output) == ("ok", {"a": 1})
        seen = await ran((case.sent,), stream, case)
        check_use(seen, [KNOWN, KNOWN])
        check_failed(seen, case, 2)

    anyio.run(check, **virtual(backend))


def raising(kind: type[Exception]) -> Callable[[object], object]:
    def fail(value: object) -> object:
        raise kind("it broke")

    return fail


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [ValueError, MemoryError, RecursionError])
def test_rows_59_and_60_what_a_stage_raises_fails_its_item(backend: str, kind: type[Exception]) -> None:
    async def check() -> None:
        records = await Pipeline(apply(raising(kind))).collect([PROMPT] * 2)
        failures = [(record.status, record.error and (record.error.type, record.error.message)) for record in records]
        assert failures == [("failed", (kind.__name__, "it broke"))] * 2

    anyio.run(check, **virtual(backend))
