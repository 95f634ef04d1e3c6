"""Saturates a pure server through the policies of a quota or a gate, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import anyio

from pipeline.calls.call import Call, CallIdentity, Policy, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.parameters import Parameters
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from pipeline.core.state import Message
from pipeline.core.usage import Usage
from tests.calls.servers import Server
from tests.calls.visits import FakeVisit

JITTER = 0.3  #: seconds that a message travels at most, one way


@dataclass
class Traffic:
    """What was sent when, and what it cost."""

    sent: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    answered: list[float] = field(default_factory=list[float])
    refused: list[float] = field(default_factory=list[float])

    def used(self, limit: float) -> float:
        """The share of a limit a minute that was used from the first to the last sending: (n - 1) / (rate x span)."""
        span = self.sent[-1][0] - self.sent[0][0]
        return sum(cost for _, cost in self.sent[:-1]) / (limit / 60 * span)

    def share_refused(self, start: float = 0.0) -> float:
        refused = sum(at >= start for at in self.refused)
        return refused / (refused + sum(at >= start for at in self.answered))

    def answered_between(self, start: float, end: float) -> int:
        return sum(start <= at < end for at in self.answered)


@dataclass
class Load:
    """How a server is asked: by so many callers, each of whom asks again as soon as it has an answer."""

    seconds: float
    callers: int
    latency: float = 2.0  #: median of a lognormal one
    sigma: float = 0.5
    median_tokens: float = 600.0  #: of a lognormal cost with sigma 1
    most_tokens: float = math.inf
    bias: float = 1.0  #: what a request costs by what its characters say

    def tokens(self, chance: Random) -> float:
        return max(1.0, min(self.most_tokens, self.median_tokens * chance.lognormvariate(0, 1)))


def request(number: int, tokens: float = 1.0) -> Request:
    """A request whose characters say that it has so many tokens."""
    asked = Message("user", "x" * round(4 * tokens))
    parameters = Parameters(max_output_tokens=1)
    return Request((asked,), parameters, None, FakeVisit(), CallIdentity(str(number), ("ask",), 0), arrival=number)


async def saturate(load: Load, *policies: Policy, attempt: Callable[[Traffic, Random], Call]) -> Traffic:
    """Ask through `policies` until the time is up; every call ends with an answer."""
    chance, traffic, count = Random(1), Traffic(), 0
    call = wrapped(attempt(traffic, chance), [Retry(attempts=100), *policies])

    async def caller() -> None:
        nonlocal count
        while anyio.current_time() < load.seconds:
            count += 1
            await call(request(count, load.tokens(chance)))

    async with anyio.create_task_group() as tg:
        for _ in range(load.callers):
            tg.start_soon(caller)
    return traffic


def asking(server: Server, load: Load, *, by_tokens: bool = False) -> Callable[[Traffic, Random], Call]:
    """An attempt against `server`, which counts requests, or tokens."""

    def make(traffic: Traffic, chance: Random) -> Call:
        async def attempt(asked: Request) -> Reply:
            tokens = max(1, round(len(asked.messages[0].content) / 4 * load.bias))
            cost = float(tokens + 1) if by_tokens else 1.0
            traffic.sent.append((anyio.current_time(), cost))
            await anyio.sleep(JITTER * chance.random())
            taken = server.takes(cost, anyio.current_time())
            await anyio.sleep(load.latency * chance.lognormvariate(0, load.sigma) if taken else 0.0)
            await anyio.sleep(JITTER * chance.random())
            (traffic.answered if taken else traffic.refused).append(anyio.current_time())
            if not taken:
                raise CallError("too fast", fault="retry", type="rate_limited", http_status=429)
            return Reply("", Usage(tokens, 1, requests=1), None)

        return attempt

    return make


def crowding(allowed: Callable[[float], int], load: Load, travel: float = 0.02) -> Callable[[Traffic, Random], Call]:
    """An attempt against a server that answers so many at a time, and refuses more of them."""

    def make(traffic: Traffic, chance: Random) -> Call:
        inside = 0

        async def attempt(asked: Request) -> Reply:
            nonlocal inside
            await anyio.sleep(travel * chance.random())
            if inside >= allowed(anyio.current_time()):
                traffic.refused.append(anyio.current_time())
                await anyio.sleep(travel * chance.random())
                raise CallError("too many", fault="retry", type="rate_limited", http_status=429)
            inside += 1
            await anyio.sleep(load.latency * chance.lognormvariate(0, load.sigma))
            inside -= 1
            traffic.answered.append(anyio.current_time())
            await anyio.sleep(travel * chance.random())
            return Reply("", Usage(1, 1, requests=1), None)

        return attempt

    return make


def mean_latency(load: Load) -> float:
    return load.latency * math.exp(load.sigma**2 / 2)
