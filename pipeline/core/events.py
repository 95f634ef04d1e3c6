"""What a run tells whoever listens: facts that a record does not hold, as plain values.

    pipe.open(prompts, on_event=print)

A listener is a plain function. It is called on the event loop and never awaited; what it raises is counted in
`Statistics.listener_errors` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from pipeline.core.joins import Verdict


class JoinDecided(NamedTuple):
    """A group was decided: which slots had ended then, and how. With `any`, `first`, `quorum` and timeouts this is what
    explains why two runs over the same input differ."""

    item_id: str  #: of the root
    path: tuple[str, ...]  #: composite and slot from the root inwards, to the composite that joined
    composite: str
    verdict: Verdict
    late: bool  #: its time was up
    slots: Mapping[str, str]  #: slot -> ok, partial, failed, skipped, cancelled, or open


Event: TypeAlias = JoinDecided
Listener: TypeAlias = Callable[[Event], object]
