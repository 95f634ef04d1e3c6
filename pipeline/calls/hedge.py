"""An attempt that takes longer than most is raced by a second one; the first answer counts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import anyio

from pipeline.calls.allowance import Allowance
from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.errors import CallError
from pipeline.calls.latencies import Latencies
from pipeline.core.errors import CallsClosed

SHARE: Final = 0.06  #: of all calls: enough for the slowest twentieth, which p95 finds, also when it is a little more
BURST: Final = 10.0
_NOT_SENT: Final = (CallError, CallsClosed)  #: what policies say before an attempt goes out


def hedge_allowance(model: str) -> Allowance:
    """Return how many second attempts all calls of a model may make."""
    return Allowance(f"second attempts of {model}", SHARE, BURST)


@dataclass(frozen=True, slots=True)
class Hedge:
    """Sends a second attempt when the first has been on its way for longer than `share` of them take.

    Only while the stage has a free slot and `allowance` something left; never for a call that streams, whose pieces
    have been told already. The first answer wins and cancels the other attempt, which is charged as any cancelled one.
    An attempt that fails leaves it to the other; when both fail, the first failure is the call's. One that fails before
    there is a second one is none of this policy's business. A second one that never goes out, because the first has
    ended or something it needs is not to be had, counts as none.
    """

    share: float
    latencies: Latencies
    allowance: Allowance

    def __call__(self, call: Call, /) -> Call:
        async def hedged(request: Request) -> Reply:
            if request.stream:
                return await call(request)
            self.allowance.earn()
            race = Race(self, call, request)
            async with anyio.create_task_group() as tg:
                tg.start_soon(race.run_first)
                await race.wait_for_tail()
                if not race.over.is_set():
                    tg.start_soon(race.run_second)
                await race.over.wait()
                tg.cancel_scope.cancel()
            return race.result()

        return hedged


class _Leg:
    """One attempt of a race. Satisfies `call.Leg`."""

    __slots__ = ("at", "on_its_way", "second")

    def __init__(self, second: bool) -> None:
        self.second = second
        self.at: float | None = None
        self.on_its_way = anyio.Event()

    def sent(self) -> None:
        self.at = anyio.current_time()
        self.on_its_way.set()


class Race:
    """The attempts of one call, and what came of them. Lives as long as the call."""

    def __init__(self, hedge: Hedge, call: Call, request: Request) -> None:
        self._hedge = hedge
        self._call = call
        self._request = request
        self._first = _Leg(second=False)
        self._second = _Leg(second=True)
        self.over = anyio.Event()  #: there is an answer, or nobody is left who might give one
        self._running = 1
        self._reply: Reply | None = None
        self._error: Exception | None = None

    def result(self) -> Reply:
        """Return the answer, or raise the first failure."""
        if self._reply is None:
            assert self._error is not None
            raise self._error
        raced = self._second.at is not None
        return replace(self._reply, flags=(*self._reply.flags, "hedged")) if raced else self._reply

    async def run_first(self) -> None:
        await self._run(self._first, self._request)

    async def wait_for_tail(self) -> None:
        """Return when the first attempt has ended, or is slower than it should be.

        What is slow is asked again when the time has come: the first that end are the quickest, so at first too little
        is taken for slow.
        """
        await self._first.on_its_way.wait()
        until = self._late_at()
        while not self.over.is_set() and anyio.current_time() < until:
            with anyio.CancelScope(deadline=until):
                await self.over.wait()
            until = self._late_at()

    def _late_at(self) -> float:
        now = anyio.current_time()
        late = self._hedge.latencies.of(self._request.visit.stage, now).percentile(self._hedge.share, now)
        if late is None:
            return float("inf")
        return (now if self._first.at is None else self._first.at) + late

    async def run_second(self) -> None:
        """Make a second attempt, if there may be one. Its number is this policy's to give back, and nobody else's; what
        it uses is the call's."""
        with self._request.visit.spare_slot() as free:
            if free and self._hedge.allowance.take():
                self._running += 1
                tries = self._request.tries or Tries(made=self._request.attempt)
                try:
                    own = Tries(account=tries.account)
                    await self._run(self._second, replace(self._request, attempt=tries.next(), tries=own))
                finally:
                    if self._second.at is None:
                        tries.give_back()
                        self._hedge.allowance.give_back()

    async def _run(self, leg: _Leg, request: Request) -> None:
        answered = False
        try:
            reply = await self._call(replace(request, leg=leg))
            answered = True
            if self._reply is None:
                self._reply = reply
        except Exception as error:
            if self._error is None and not (leg.second and leg.at is None and isinstance(error, _NOT_SENT)):
                self._error = error
        finally:
            self._learn(leg, answered)
            self._running -= 1
            leg.on_its_way.set()
            if self._reply is not None or not self._running:
                self.over.set()

    def _learn(self, leg: _Leg, answered: bool) -> None:
        """Count how long it took; an attempt that lost the race would have taken longer still."""
        lost = self._reply is not None and not answered and self._error is None
        if leg.at is not None and (answered or lost):
            now = anyio.current_time()
            self._hedge.latencies.of(self._request.visit.stage, now).add(now - leg.at, now)
