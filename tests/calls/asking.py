"""What tests of single policies ask and get, and how they cancel at every moment; in virtual time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
from anyio.lowlevel import checkpoint

from pipeline.calls.call import CallIdentity, Reply, Request
from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.parameters import Parameters
from pipeline.core.usage import Cost, Usage
from tests.calls.visits import FakeVisit


def ask(number: int = 0, *, stream: bool = False, visit: FakeVisit | None = None) -> Request:
    """The call of item `number`, which came in that order too."""
    visit = visit or FakeVisit(item_id=str(number))
    return Request((), Parameters(), None, visit, CallIdentity(str(number), ("ask",), 0), arrival=number, stream=stream)


def reply(text: str = "ok", flags: tuple[str, ...] = ()) -> Reply:
    return Reply(text, Usage(3, 1, requests=1), Cost(0.5, "list"), finish_reason="stop", flags=flags)


def failure(type: str = "connection", fault: FaultClass = "retry", http_status: int | None = None) -> CallError:
    return CallError(f"it said {type}", fault=fault, type=type, http_status=http_status)


async def cancelled_at_every_moment(
    scenario: Callable[[], Awaitable[object]], check: Callable[[], Awaitable[None]], most: int = 800
) -> int:
    """Run `scenario` again and again, each time cancelled a little later, and `check` after each, until it ends first.

    Return how often that was."""
    for moment in range(most):
        ended = False
        with anyio.CancelScope() as scope:
            async with _cancelling(scope, moment):
                await scenario()
                ended = True
        await check()
        if ended:
            return moment
    raise AssertionError(f"it does not end within {most} moments")


@asynccontextmanager
async def _cancelling(scope: anyio.CancelScope, moment: int) -> AsyncGenerator[None]:
    """Cancel `scope` every quarter of a second, and up to 7 turns of the scheduler later."""

    async def cancel() -> None:
        await anyio.sleep(0.25 * (moment // 8))
        for _ in range(moment % 8):
            await checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tg:
        tg.start_soon(cancel)
        yield
        tg.cancel_scope.cancel()
