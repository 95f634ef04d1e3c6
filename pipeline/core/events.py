"""What a run tells whoever listens: facts that a record does not hold, as plain values.

    pipe.open(prompts, on_event=print)

A listener is a plain function. It is called on the event loop and never awaited; what it raises is counted in
`Statistics.listener_errors` and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

from pipeline.core.joins import Verdict
from pipeline.core.usage import Cost, Usage


class JoinDecided(NamedTuple):
    """A group was decided: which slots had ended then, and how. With `any`, `first`, `quorum` and timeouts this is what
    explains why two runs over the same input differ."""

    item_id: str  #: of the root
    path: tuple[str, ...]  #: composite and slot from the root inwards, to the composite that joined
    composite: str
    verdict: Verdict
    late: bool  #: its time was up
    slots: Mapping[str, str]  #: slot -> ok, partial, failed, skipped, cancelled, or open
    complete: bool = True  #: no more slots would have been added


Trigger: TypeAlias = Literal["size", "time", "end", "drain"]


class BatchFlushed(NamedTuple):
    """A batch was sent on, and why. Who is in it may depend on timing, and is told here."""

    stage: str
    items: tuple[str, ...]  #: the ids of its members, in their order; `id#k` for a part of a root
    weight: float
    trigger: Trigger


class LoopBlocked(NamedTuple):
    """Code that does not wait kept the event loop from everything else; told when it is over, see `watchdog`."""

    culprit: str  #: for people: `stage 'fetch'`, `the source`, `the sink`, `code outside the stages`
    stage: str | None  #: the stage's name, if it is one
    where: str  #: the innermost line of the user's code: `file:line in function`
    seconds: float


class RunStalled(NamedTuple):
    """Nothing moved for `seconds` though nobody was waited for outside; told once a stall, see `stall_timeout`."""

    seconds: float
    chain: tuple[str, ...]  #: what waits for what, from the oldest open root on, as `Run.wait_chain` gives it


class TextStreamed(NamedTuple):
    """A piece of an answer, as it comes; only of calls that were asked to stream. A later attempt begins anew."""

    item_id: str
    path: tuple[str, ...]  #: where the stage stands, the stage's name last
    ordinal: int  #: which call of the visit
    attempt: int
    text: str


class AttemptEnded(NamedTuple):
    """One physical try of a call was answered, failed or was cancelled."""

    item_id: str
    path: tuple[str, ...]
    ordinal: int
    attempt: int
    model: str
    outcome: str  #: ok, cancelled, or the type of the failure
    seconds: float
    usage: Usage | None  #: None when nothing is known of it
    cost: Cost | None


class CallEnded(NamedTuple):
    """One call has ended, whatever its policies did for it."""

    item_id: str
    path: tuple[str, ...]
    ordinal: int
    model: str
    outcome: str  #: ok, cancelled, or the type of the failure
    attempts: int
    seconds: float
    flags: tuple[str, ...]


class EndpointChanged(NamedTuple):
    """An endpoint that did answer, or could not be reached, went down; or it is back. Told to the run that saw it."""

    endpoint: str
    model: str  #: whose call found it
    state: Literal["down", "up"]
    why: str  #: the message of the failure that it went down with; empty when it is up
    waiting: int  #: calls that wait for it by now; more come with each attempt that fails
    patient: bool  #: whether calls wait for it; those of a model with others to fall back to do not


class ModelReplaced(NamedTuple):
    """A call goes to another model because the account of `model` got a final no; told of each such call."""

    model: str
    by: str
    type: str  #: of the failure: key_refused, no_money, …
    why: str  #: its message


Event: TypeAlias = (
    JoinDecided
    | BatchFlushed
    | LoopBlocked
    | RunStalled
    | TextStreamed
    | AttemptEnded
    | CallEnded
    | EndpointChanged
    | ModelReplaced
)
Listener: TypeAlias = Callable[[Event], object]
