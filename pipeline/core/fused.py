"""Adjacent plain functions as one stage: one task and one edge for all of them, counters for each.

A stream between two functions that never wait would cost more than both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage, Plain, Process, Visited
from pipeline.core.stage import Stage
from pipeline.core.statistics import Meter

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker


@dataclass(frozen=True)
class FusedStage(LeafStage):
    """Plain functions in a row, run in one visit."""

    members: tuple[LeafStage, ...] = ()

    @classmethod
    def of(cls, members: Sequence[Stage]) -> FusedStage:
        leaves = tuple(member for member in members if isinstance(member, LeafStage))
        return cls("+".join(leaf.name for leaf in leaves), on_error=leaves[0].on_error, members=leaves)

    @property
    def buffer_size(self) -> int:
        return max(leaf.buffer_size for leaf in self.members)

    def watched(self, watch: Callable[[Stage, object], object]) -> Stage:
        return replace(self, members=tuple(member.watched(watch) for member in self.members))

    def bind(self, scope: Scope) -> Process:
        steps: list[tuple[Meter, Plain]] = []
        for leaf in self.members:
            plain = leaf.plain()
            if plain is None:
                raise TypeError(f"{leaf.name!r} is not a plain function and cannot be fused")
            steps.append((scope.meter(leaf.name, leaf.concurrency), plain))

        def process(item: Item, worker: Worker) -> Visited:
            for meter, plain in steps:
                meter.received += 1
                try:
                    result = plain(item)
                except Exception:
                    meter.failed += 1
                    worker.at, worker.reached = meter.name, item
                    raise
                if result is None:
                    meter.skipped += 1
                    return None
                meter.emitted += 1
                item = result
            return item

        return process
