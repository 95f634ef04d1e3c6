"""What `penstock run memory.yaml --backend X` does, by the library alone: stdin to stdout, a snapshot on SIGUSR1."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import anyio

from pipeline import Pipeline, Run
from pipeline.config.description import load
from stages.sinks import JsonlSink
from stages.sources import Inputs


async def main(file: Path) -> None:
    description = load(file, allow_import=["memory_stages"])
    pipe = Pipeline(description.stages, variables=description.vars, **description.options)  # type: ignore[arg-type]
    with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
        async with anyio.create_task_group() as tg:

            async def show(run: Run) -> None:
                async for _ in signals:
                    print(run.statistics(), file=sys.stderr, flush=True)

            def watch(run: Run) -> None:
                tg.start_soon(show, run)

            async with JsonlSink().open() as sink:
                await pipe.run(Inputs(), sink, watch=watch)
            tg.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, Path(__file__).with_name("memory.yaml"), backend=sys.argv[1])
