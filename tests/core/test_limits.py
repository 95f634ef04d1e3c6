"""What calls share: made once by key, opened once, closed with the limits, and shown in the statistics of a run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from pipeline import Budget, DefinitionError, Limits, Pipeline
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage
from pipeline.core.ports import Resource


@dataclass
class Line:
    """Something with statistics."""

    text: str

    def statistics(self) -> str:
        return self.text


async def test_what_stands_under_a_key_is_made_by_the_first_who_asks() -> None:
    limits = Limits()
    first = limits.shared("quota", list[int])
    assert limits.shared("quota", list[int]) is first
    assert limits.shared(("quota", "other"), list[int]) is not first


async def test_what_is_opened_is_opened_once_and_closed_with_the_limits() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def client() -> AsyncGenerator[str]:
        steps.append("opened")
        await anyio.lowlevel.checkpoint()
        yield "client"
        steps.append("closed")

    async with Limits() as limits:
        async with anyio.create_task_group() as tg:
            for _ in range(3):
                tg.start_soon(limits.opened, "client", client)
        assert await limits.opened("client", client) == "client"
        assert steps == ["opened"]
    assert steps == ["opened", "closed"]


async def test_an_opening_that_fails_leaves_the_key_free() -> None:
    @asynccontextmanager
    async def broken() -> AsyncGenerator[str]:
        raise OSError("no such host")
        yield ""

    @asynccontextmanager
    async def sound() -> AsyncGenerator[str]:
        yield "sound"

    async with Limits() as limits:
        with pytest.raises(OSError, match="no such host"):
            await limits.opened("client", broken)
        assert await limits.opened("client", sound) == "sound"


def test_only_what_has_statistics_is_shown_in_the_order_it_was_asked_for() -> None:
    limits = Limits()
    limits.shared("a", lambda: Line("requests 3/min"))
    limits.shared("b", object)
    limits.shared("c", lambda: Line("gate 20"))
    assert [str(each) for each in limits.statistics()] == ["requests 3/min", "gate 20"]


@dataclass(frozen=True)
class Meter:
    """A resource that shares a line with all that are opened within the same limits."""

    def open(self) -> AbstractAsyncContextManager[Line]:
        raise AssertionError("it is opened within limits")

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[Line]:
        return self._opened(limits)

    @asynccontextmanager
    async def _opened(self, limits: Limits) -> AsyncGenerator[Line]:
        yield limits.shared("line", lambda: Line("0 seen"))


@dataclass(frozen=True)
class Counting(LeafStage):
    meter: Meter = field(default_factory=Meter)

    def resources(self) -> tuple[Resource[object], ...]:
        return (self.meter,)

    async def process(self, item: Item) -> object:
        return item.value


async def test_a_run_has_limits_of_its_own_and_shows_them() -> None:
    async with Pipeline(Counting("count")).open(["a"]) as run:
        assert [record.output async for record in run.results] == ["a"]
        assert [str(each) for each in run.statistics().limits] == ["0 seen"]
        assert run.statistics().lines()[-1] == "limit   0 seen"


async def test_runs_that_are_given_the_same_limits_share_what_is_in_them() -> None:
    pipe = Pipeline(Counting("count"))
    async with Limits() as limits:
        async with pipe.open(["a"], limits=limits) as one, pipe.open(["b"], limits=limits) as other:
            assert one.opened(Meter()) is other.opened(Meter())
            _ = [record async for record in one.results], [record async for record in other.results]
        assert await pipe.collect(["c"], limits=limits)
        assert [str(each) for each in limits.statistics()] == ["0 seen"]
    async with pipe.open(["a"]) as one, pipe.open(["b"]) as other:
        assert one.opened(Meter()) is not other.opened(Meter())
        _ = [record async for record in one.results], [record async for record in other.results]


def test_what_is_no_budget_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"budget: is '5usd' \(give Budget\(usd=5.0\)"):
        Limits("5usd")  # type: ignore[arg-type]
    assert Limits(Budget(usd=5.0)).purse is not None


async def test_what_are_no_limits_are_refused_when_a_run_opens() -> None:
    with pytest.raises(TypeError, match=r"limits is 'x'; give Limits\(\)"):
        await Pipeline(Counting("count")).collect(["a"], limits="x")  # type: ignore[arg-type]
