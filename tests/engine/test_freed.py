"""What a record was made of is free when nothing is left of its root, and not when the collector comes by."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from pipeline import Pipeline
from stages import map
from tests.engine.schedules import run_in


class Load:
    """Stands for something large."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("shape", ["one stage", "two stages"])
def test_payloads_do_not_wait_for_the_collector(backend: str, shape: str, uncollected: None) -> None:
    loads: weakref.WeakSet[Load] = weakref.WeakSet()
    most = 0

    def source() -> Iterator[Load]:
        nonlocal most
        for _ in range(200):
            load = Load()
            loads.add(load)
            most = max(most, len(loads))
            yield load

    first = map(lambda load: type(load).__name__, name="first")
    stage = first if shape == "one stage" else first | map(len, name="second")
    pipe = Pipeline(stage, max_in_flight=4)

    async def main() -> None:
        async with pipe.open(source()) as run:
            async for record in run.results:
                assert record.status == "ok"
                del record

    run_in(backend, 1, main)
    assert most <= 4 + 4
