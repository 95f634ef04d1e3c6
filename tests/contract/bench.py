"""The law of every stage: each item that it receives ends exactly once, sent on or with an outcome; its ends are closed
and its slots are back, whatever happens. `laws` names the cases; a `Bench` runs one stage between two edges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from pipeline.core.errors import Skip
from pipeline.core.feeder import as_input
from pipeline.core.item import Item, Outcome
from pipeline.core.machine import Machine
from pipeline.core.pipeline import Pipeline
from pipeline.core.root import Root, first_item
from pipeline.core.stage import Stage
from pipeline.core.streams import open_edge


class Script:
    """What the functions of a stage under test do, by payload; notes every visit."""

    def __init__(self) -> None:
        self.visits: list[str] = []

    async def __call__(self, value: object) -> object:
        word = str(value)
        self.visits.append(word)
        match word:
            case "raise":
                raise ValueError("as told")
            case "skip":
                raise Skip
            case "wait":
                await anyio.sleep_forever()
            case _:
                return word
        return None


@dataclass
class Ends:
    """How one root stands: its outcome, or how often its item came out."""

    status: str | None
    sent_on: int


class Bench:
    """One stage in a run of its own, with an edge before and behind it."""

    def __init__(self, stage: Stage, *, room: int = 32) -> None:
        self.stage = stage
        self.machine = Machine(Pipeline(stage, max_in_flight=32), {})
        self.before = open_edge("the stage", 32)
        self.behind = open_edge("the sink", room)
        self.outcomes: dict[int, list[str]] = {}
        self.machine.window.on = self.machine.window.on._replace(finished=self._finished)
        self.scope = anyio.CancelScope()

    def _finished(self, root: Root, status: str) -> None:
        self.outcomes.setdefault(root.index, []).append(status)

    def put(self, *values: str) -> list[Root]:
        """Admit roots and put their items in front of the stage."""
        roots = [self.machine.window.admit(as_input(value)) for value in values]
        for root in roots:
            self.before.outbox.send_nowait(first_item(root))
        return roots

    async def run(self, meanwhile: Callable[[], object] = lambda: None, *, end_input: bool = True) -> list[Item]:
        """Run the stage, do `meanwhile` when nothing moves any more, and return what came out."""
        if end_input:
            self.before.outbox.close()
        async with anyio.create_task_group() as tg:
            self.machine._tasks = tg
            with self.scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(self.machine.scope.run_stage, self.stage, self.before.inbox, self.behind.outbox)
                    await anyio.sleep(1)
                    meanwhile()
            tg.cancel_scope.cancel()
        return self.received()

    def received(self) -> list[Item]:
        """What lies behind the stage."""
        items: list[Item] = []
        try:
            while True:
                items.append(self.behind.inbox.receive_nowait())
        except (anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            return items

    def settle(self, items: list[Item]) -> None:
        """End what was sent on, as the end of a pipeline does, and take the records."""
        for item in items:
            item.frame.resolve(Outcome("ok", item))
        ready = self.machine.results._ready
        while ready:
            delivery = ready.popleft()
            delivery.fold.delivered(delivery.frame, delivery.record)

    def assert_clean(self) -> None:
        """Ends closed, slots back, nothing alive, no root without exactly one outcome."""
        self.before.outbox.close()
        self.behind.inbox.close()
        for edge in (self.before, self.behind, *self.machine.edges):
            ends = edge.inbox.statistics()
            assert (ends.open_send_streams, ends.open_receive_streams) == (0, 0), edge
        for meter in self.machine.meters.values():
            assert (meter.slots.borrowed, meter.slots.sleeping) == (0, 0), meter.name
        window = self.machine.window
        assert window.alive == 0
        assert [len(self.outcomes.get(index, ())) for index in range(window.admitted)] == [1] * window.admitted
