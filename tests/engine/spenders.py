"""A model that costs money, and whose server keeps its own books: what it charged for, answered or not."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from random import Random

import anyio
import pytest

from pipeline.calls.budget import Reserve
from pipeline.calls.call import Call, CallIdentity, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import Given
from pipeline.calls.retry import Retry
from pipeline.calls.stack import Stack
from pipeline.calls.timeout import AttemptTimeout
from pipeline.calls.upper_bound import unbounded
from pipeline.core.budget import Budget
from pipeline.core.errors import Problem
from pipeline.core.limits import Limits
from pipeline.core.ports import Visit
from pipeline.core.purse import Amount, Claim, Purse, picos
from pipeline.core.state import Message
from pipeline.core.usage import Usage

TARIFF = Given.of({"input": 2.5, "output": 10})


@dataclass
class Books:
    """What the server charged for, in requests and tokens; the truth that no client sees all of."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0
    lost: int = 0  #: attempts that were charged and whose answer never arrived
    refused: int = 0


@dataclass(frozen=True)
class Spender:
    """Answers are `least` to `most` tokens long, and as many of the attempts as `refused`, `lost` and `hung` say are
    refused, charged and lost, and charged and never answered."""

    books: Books = field(default_factory=Books, compare=False)
    least: int = 50
    most: int = 1000
    refused: float = 0.0
    lost: float = 0.0
    hung: float = 0.0
    max_concurrency: int | None = None
    attempts: int = 4
    name: str = "spender"
    tariff: Given = TARIFF

    def open(self) -> AbstractAsyncContextManager[OpenSpender]:
        raise AssertionError("it is opened within limits")

    def against_budget(self, budget: Budget, parameters: Mapping[str, object] | None) -> list[Problem]:
        known = None if parameters is None else Parameters().updated(parameters)
        return unbounded(self.name, self.tariff, budget, known)

    @asynccontextmanager
    async def open_within(self, limits: Limits) -> AsyncGenerator[OpenSpender]:
        most = self.max_concurrency
        stack = Stack(
            retry=Retry(attempts=self.attempts),
            budget=Reserve(self.name, self.tariff),
            limit=None if most is None else Units(anyio.CapacityLimiter(most)),
            timeout=AttemptTimeout(30),
        )
        yield OpenSpender(stack.around(self._ask), limits.shared("arrivals", itertools.count))

    async def _ask(self, request: Request) -> Reply:
        chance = Random(request.identity.digest(request.attempt))
        usage = Usage(len(request.messages[-1].content), chance.randint(self.least, self.most), requests=1)
        fate = chance.random()
        await anyio.sleep(chance.uniform(0.01, 0.5))
        if fate < self.refused:
            self.books.refused += 1
            self.books.requests += 1
            raise CallError("slow down", fault="retry", type="rate_limited", http_status=429)
        self.books.requests += 1
        self.books.tokens += usage.input_tokens + usage.output_tokens
        self.books.usd += self.tariff.cost(usage).usd or 0.0
        if fate < self.refused + self.lost + self.hung:
            self.books.lost += 1
            if fate >= self.refused + self.lost:
                await anyio.sleep_forever()
            raise CallError("it broke off", fault="ambiguous", type="disconnected")
        await anyio.sleep(chance.uniform(0.1, 2.0))
        return Reply("x" * 20, usage, self.tariff.cost(usage))


@dataclass(frozen=True)
class Units:
    """So many attempts at a time."""

    limiter: anyio.CapacityLimiter

    def __call__(self, call: Call, /) -> Call:
        async def limited(request: Request) -> Reply:
            unit = object()
            await self.limiter.acquire_on_behalf_of(unit)
            try:
                return await call(request)
            finally:
                self.limiter.release_on_behalf_of(unit)

        return limited


@dataclass(frozen=True)
class OpenSpender:
    ask: Call
    arrivals: itertools.count[int]

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        params.pop("schema", None)
        identity = CallIdentity(visit.item_id, visit.path, visit.next_ordinal())
        parameters = Parameters().updated(params)
        return await self.ask(Request(tuple(messages), parameters, None, visit, identity, arrival=next(self.arrivals)))


@dataclass
class Watch:
    """What was seen of all purses at every change of one."""

    changes: int = 0
    broken: list[str] = field(default_factory=list[str])
    purses: dict[int, Purse] = field(default_factory=dict[int, Purse])
    most_waiting: int = 0
    unknown: int = 0  #: claims that were spent whole


@contextmanager
def watched() -> Generator[Watch]:
    """Look at every change of every purse: the law has to hold after it."""
    watch = Watch()
    move, spend = Purse.move, Claim.spend

    def seen(purse: Purse, spent: Amount = Amount(), reserved: Amount = Amount()) -> None:
        move(purse, spent, reserved)
        watch.changes += 1
        watch.purses[id(purse)] = purse
        watch.most_waiting = max(watch.most_waiting, len(purse.waiting))
        limits = (purse.budget.usd, purse.budget.tokens, purse.budget.requests)
        for place, (most, used, held) in enumerate(zip(limits, purse.spent, purse.reserved, strict=True)):
            if most is not None and used + held > (picos(most) if place == 0 else most):
                watch.broken.append(str(purse.statistics()))

    def spent_whole(claim: Claim, cost: Amount | None) -> None:
        watch.unknown += cost is None
        spend(claim, cost)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Purse, "move", seen)
        patch.setattr(Claim, "spend", spent_whole)
        yield watch
