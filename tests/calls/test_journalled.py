"""How a call ended is in the journal, and the same call of a later run ends so again, at the cost that it had."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pipeline.calls.call import Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.journalled import KIND, Journalled
from pipeline.core.codec import decode, encode
from pipeline.core.ports import OpenAttempt
from pipeline.core.purse import Amount
from pipeline.core.usage import Cost, Usage
from tests.calls.asking import ask, failure, reply
from tests.calls.visits import FakeVisit

Paid = tuple[Usage, Cost | None]

#: what the answer itself did cost, and what a failed attempt before it did
ANSWER = reply()
BROKEN: Paid = Usage(3, 0, requests=1), Cost(0.25, "list")


class Facts:
    """A page that keeps what is written as a journal does: as JSON."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, tuple[str, ...], int], bytes] = {}

    def find(self, kind: str, path: tuple[str, ...], ordinal: int = 0) -> object | None:
        found = self.written.get((kind, path, ordinal))
        return None if found is None else decode(found)

    def write(self, kind: str, path: tuple[str, ...], value: object, ordinal: int = 0) -> None:
        self.written[kind, path, ordinal] = encode(value)

    def begun(self, path: tuple[str, ...]) -> bool:
        raise NotImplementedError

    async def begin_attempt(
        self, path: tuple[str, ...], ordinal: int, number: int, model: str, reserved: Amount | None
    ) -> OpenAttempt:
        raise NotImplementedError

    def recalled(self, usage: Usage, cost: Cost | None) -> None:
        raise NotImplementedError


@dataclass
class Keeping(FakeVisit):
    """A visit of a run with a journal."""

    facts: Facts = field(default_factory=Facts)
    recalled: list[Paid] = field(default_factory=list[Paid])

    @property
    def page(self) -> Facts:  # type: ignore[override]
        return self.facts

    def recall(self, usage: Usage, cost: Cost | None) -> None:
        self.recalled.append((usage, cost))


async def kept(facts: Facts, *attempts: Paid, end: Reply | CallError) -> None:
    """Make a call whose attempts cost so much, the last one being the `end`."""

    async def call(request: Request) -> Reply:
        assert request.tries is not None
        for usage, cost in attempts:
            request.tries.account.charge(usage, cost)
        if isinstance(end, CallError):
            raise end
        return end

    await journalled(facts, call, Keeping(facts=facts))


async def never(request: Request) -> Reply:
    raise AssertionError("its end is known")


async def journalled(facts: Facts, call: object, visit: Keeping) -> Reply:
    policy = Journalled(("here",), lambda request: [message.content for message in request.messages])
    return await policy(call)(ask(visit=visit))  # type: ignore[arg-type]


@pytest.mark.parametrize("before", [(), (BROKEN,)], ids=["one attempt", "a failed one before it"])
async def test_an_answer_and_what_all_its_attempts_cost_come_back_as_they_were(before: tuple[Paid, ...]) -> None:
    facts, later = Facts(), Keeping()
    await kept(facts, *before, (ANSWER.usage, ANSWER.cost), end=ANSWER)
    later.facts = facts
    assert await journalled(facts, never, later) == ANSWER
    whole = (Usage(6, 1, requests=2), Cost(0.75, "list")) if before else (ANSWER.usage, ANSWER.cost)
    assert later.recalled == [whole]


async def test_what_an_answer_cost_is_written_once_unless_other_attempts_did_cost_something_too() -> None:
    alone, after = Facts(), Facts()
    await kept(alone, (ANSWER.usage, ANSWER.cost), end=ANSWER)
    await kept(after, BROKEN, (ANSWER.usage, ANSWER.cost), end=ANSWER)
    assert [next(iter(facts.written.values())).count(b'"usage"') for facts in (alone, after)] == [1, 2]


async def test_an_error_that_ended_a_call_ends_it_again_at_its_cost() -> None:
    facts, later = Facts(), Keeping()
    error = failure("bad_request", "fail", 400)
    with pytest.raises(CallError):
        await kept(facts, BROKEN, end=error)
    later.facts = facts
    with pytest.raises(CallError) as caught:
        await journalled(facts, never, later)
    assert (str(caught.value), caught.value.type, caught.value.http_status) == (str(error), "bad_request", 400)
    assert later.recalled == [BROKEN]


async def test_what_ends_with_the_run_is_not_kept() -> None:
    for fault in ("stop", "park"):
        facts = Facts()
        with pytest.raises(CallError):
            await kept(facts, end=failure("wrong_key", fault))
        assert facts.find(KIND, ("ask",)) is None
