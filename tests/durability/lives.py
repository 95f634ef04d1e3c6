"""Runs of a small pipeline with a journal, and the image of one that a crash would leave."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.recovered import Recovered
from pipeline.core.stage import Chain, Stage
from pipeline.durability.journal import FILE, Journal
from stages import agent
from stages.models.simulated import SimulatedModel

PRICE = {"input": 2.5, "output": 10}
LATENCY = 5.0


def model(**options: Any) -> SimulatedModel:
    """A model that answers after 5 seconds, for money."""
    return SimulatedModel(**{"latency": LATENCY, "price": PRICE, "model": "echo", **options})


def chain(*prompts: str, model: SimulatedModel | None = None) -> Stage:
    """A chain of agents called a, b, c, …, one for each prompt."""
    asked = model or globals()["model"]()
    return Chain.of(
        *(
            agent(name, model=asked, prompt=prompt, max_output_tokens=100, concurrency=8)
            for name, prompt in zip("abcdefgh", prompts, strict=False)
        )
    )


def pipe(*prompts: str, model: SimulatedModel | None = None, **options: Any) -> Pipeline:
    """A pipeline of such agents."""
    return Pipeline(chain(*(prompts or ("{{ prompt }}",)), model=model), **options)


@dataclass
class Lived:
    """What came of a run."""

    records: list[Record]
    recovered: Recovered | None

    @property
    def outputs(self) -> dict[str, object]:
        return {record.id: record.output for record in self.records}


async def live(pipeline: Pipeline, source: object, journal: Journal) -> Lived:
    """Run to the end."""
    async with pipeline.open(source, journal=journal) as run:  # type: ignore[arg-type]
        records = [record async for record in run.results]
        return Lived(records, run.recovered)


async def crashed(pipeline: Pipeline, source: object, journal: Journal, after: float, image: Path) -> Journal:
    """A journal as it would be if the process had died after so many seconds."""

    async def read() -> None:
        async for _ in run.results:
            pass

    async with pipeline.open(source, journal=journal) as run, anyio.create_task_group() as tg:  # type: ignore[arg-type]
        tg.start_soon(read)
        await anyio.sleep(after)
        shutil.copytree(journal.directory, image)
        run.abort()
        tg.cancel_scope.cancel()
    return Journal(image)


def asked(journal: Journal, query: str) -> list[tuple[Any, ...]]:
    """What the journal says."""
    with closing(sqlite3.connect(Path(journal.directory) / FILE)) as file:
        return file.execute(query).fetchall()


def attempts(journal: Journal, epoch: int) -> dict[str, int]:
    """How many attempts each stage made in one run."""
    found: dict[str, int] = {}
    for (path,) in asked(journal, f"SELECT path FROM attempt WHERE epoch = {epoch}"):
        stage = json.loads(path)[-1]
        found[stage] = found.get(stage, 0) + 1
    return found
