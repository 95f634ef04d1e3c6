"""How the engine sees what it does not know: models, sources, sinks, as Protocols.

The engine opens a `Resource` once a run, hands it to the visits that ask for it, and closes it when the last item has
settled. What is behind it (a client, a simulator, a file) is none of the engine's business.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from anyio import Lock

from pipeline.core.errors import WriteError
from pipeline.core.events import Event
from pipeline.core.limits import Limits
from pipeline.core.purse import Amount, Purse
from pipeline.core.record import Input, Record, Status
from pipeline.core.recovered import Recovered
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage

if TYPE_CHECKING:
    from pipeline.core.pipeline import Pipeline

T_co = TypeVar("T_co", covariant=True)


class Hold(Protocol):
    """Something that a visit can wait for inside a call: a limit, a quota, the answer. For `Run.wait_chain`."""

    def __str__(self) -> str:
        """What comes after "waits for"."""
        ...

    def holders(self) -> Sequence[Visit]:
        """The visits that have what is waited for, the earliest first; empty if it is not theirs to give."""
        ...


#: ok: answered. refused: surely unpaid. failed: paid as its usage says. ambiguous: it may have been paid. unsent: it
#: never left.
AttemptEnd: TypeAlias = Literal["ok", "refused", "failed", "ambiguous", "unsent"]


class OpenAttempt(Protocol):
    """An attempt whose intent is in the journal: after a crash it is known that it may have been paid."""

    def depart(self) -> None:
        """Note, at once and for who comes after a kill, that its first byte is about to leave the process."""
        ...

    def end(self, end: AttemptEnd, usage: Usage, cost: Cost | None) -> None:
        """Write how it ended. Queued, not waited for."""
        ...


#: instead of the number of a line: the consumer has it from an earlier run, or has it from `RunJournal.untaken`
EARLIER: Final = -1


class Page(Protocol):
    """What the journal holds of one root, and where more of it is written.

    The journal is a sequence: what is written is durable in the order of writing, so whatever waits until it is durable
    itself (an attempt, a record) can rely on all that was written before.
    """

    def find(self, kind: str, path: tuple[str, ...], ordinal: int = 0) -> object | None:
        """What an earlier run wrote under this name, as JSON; None if it did not come so far."""
        ...

    def write(self, kind: str, path: tuple[str, ...], value: object, ordinal: int = 0) -> None:
        """Write what a replay has to know, over what was there. Queued, not waited for. Raises `NotJson`."""
        ...

    def begun(self, path: tuple[str, ...]) -> bool:
        """Whether an earlier run wrote anything of what is below `path`, or a record of a part of the root."""
        ...

    async def begin_attempt(
        self, path: tuple[str, ...], ordinal: int, number: int, model: str, reserved: Amount | None
    ) -> OpenAttempt:
        """Write that an attempt of a call is about to be sent, and wait until that is durable.

        Raises `CallsClosed` when the journal takes nothing more; cancelled while it waits, the attempt is unsent.
        """
        ...

    def recalled(self, usage: Usage, cost: Cost | None) -> None:
        """Count a call whose answer came from the journal."""
        ...

    def under(self, *prefix: str) -> Page:
        """The same page for what belongs to a part of the root whose own paths begin anew, such as a batch."""
        ...

    def deliver(
        self, slots: tuple[str, ...], record: Record, settles: bool, done: Callable[[Record, int], None]
    ) -> None:
        """Write the line of a record that the root, or its part at `slots`, leaves; `settles` if the root ends by it.

        When it is durable, `done` is called with the record as it was written and the number of its line, see
        `RunJournal.taken`; at once, and with `EARLIER`, if an earlier run wrote it; never when the disk fails.
        """
        ...

    def settle(self, status: Status) -> None:
        """Write that the root has ended, with all its records. Queued, not waited for."""
        ...

    def enter(self) -> int:
        """Note, until `leave`, that code of the user's is at work on the root: a crash meanwhile is blamed on it."""
        ...

    def leave(self, mark: int) -> None:
        """What `enter` has noted is over."""
        ...

    def forget(self) -> None:
        """Let go of what earlier runs wrote: nothing is left of the root."""
        ...

    @property
    def turn(self) -> Lock | None:
        """What code of a root has to hold that was at work at a crash: of such roots one at a time is at work, so that
        the next crash tells whose code it was. None for all others."""
        ...


class Admitted(NamedTuple):
    """A record that has a place in the journal, and so may be run."""

    record: Input
    place: int  #: in the input
    page: Page


class RunJournal(Protocol):
    """The journal of a run, open. What can change beside its counts: `trouble`, who is told that the disk refuses."""

    #: called at most twice: with False when it is full and the run has to end, with True when nothing can be written
    trouble: Callable[[WriteError, bool], None] | None

    @property
    def in_flight(self) -> int:
        """Attempts that were sent and have not ended."""
        ...

    def unfinished(self) -> AsyncGenerator[Admitted]:
        """The records that earlier runs admitted and did not settle."""
        ...

    async def admit(self, record: Input, place: int) -> Admitted | None:
        """Write that `record` is admitted; None if an earlier run did. Waits while too much waits for the disk."""
        ...

    async def begin(self) -> None:
        """Everything else is open: bring what is made of the journal up to date. Raises `WriteError`; what could not
        start has touched nothing."""
        ...

    async def durable(self) -> bool:
        """Wait until all that was admitted is on the disk; False if it will never be."""
        ...

    def end_asked(self, *, at_once: bool) -> None:
        """The end of the run was asked for: no code is to blame if it comes by a kill. `at_once`: nobody waits long for
        what is still to be written."""
        ...

    async def untaken(self, after: int) -> Sequence[tuple[int, Record]]:
        """Records that earlier runs wrote and nobody took, with the numbers of their lines, which are above `after`:
        the next ones, or none."""
        ...

    def taken(self, number: int) -> None:
        """The consumer has the record of this line, and of all before it. Queued, not waited for."""
        ...

    @property
    def recovered(self) -> Recovered | None:
        """What earlier runs have left; None if there was none."""
        ...

    @property
    def takes_more(self) -> bool:
        """Whether the run reads its source, and does not only finish some of what earlier runs have begun."""
        ...

    def follow(self, records: object) -> None:
        """Take note of how far `records`, the source that was opened, is read, if it can tell."""
        ...

    @property
    def spent(self) -> Amount:
        """What earlier runs have spent, with the most that attempts may have cost of which nobody knows."""
        ...


class Journals(Protocol):
    """The definition of a journal."""

    @property
    def output(self) -> object | None:
        """What it writes by itself; None if nothing, so that a run needs a sink."""
        ...

    def open(self, pipeline: Pipeline, source: object) -> AbstractAsyncContextManager[RunJournal]:
        """Open it for one run of `pipeline` over `source`. Raises `JournalError`."""
        ...


class Visit(Protocol):
    """What a model call may know of, and ask from, the visit of an item to a stage that makes it."""

    @property
    def stage(self) -> str:
        """The name of the stage."""
        ...

    @property
    def item_id(self) -> str:
        """The id of the root."""
        ...

    @property
    def path(self) -> tuple[str, ...]:
        """Where the stage stands, from the root inwards: composite, branch or child or round, …, stage."""
        ...

    @property
    def deadline(self) -> float | None:
        """When the item ends, on the clock of `anyio.current_time()`; None if never."""
        ...

    def next_ordinal(self) -> int:
        """Count the calls of this visit: 0 for the first. With `item_id` and `path` it identifies a call."""
        ...

    def admit_call(self) -> None:
        """Ask whether a new attempt may start. Raises `CallsClosed` when the run only finishes what is in flight."""
        ...

    @property
    def page(self) -> Page | None:
        """What the journal holds of the root; None if the run has no journal."""
        ...

    def recall(self, usage: Usage, cost: Cost | None) -> None:
        """Add to the root's account what an earlier run has paid for a call that is answered from the journal."""
        ...

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        """Add one attempt to the totals of the run, and to the record that comes of the visit; a visit that is revoked
        is in no record."""
        ...

    def remark(self, flag: str) -> None:
        """Count something that has to be said of an answer or a tool, see `Statistics.remarks`."""
        ...

    @property
    def purses(self) -> Sequence[Purse]:
        """The budgets that this call is paid from; empty if nothing limits its cost."""
        ...

    @property
    def listening(self) -> bool:
        """Whether anybody listens to events, so that making one is worth the while."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the listener of the run, if there is one."""
        ...

    def spare_slot(self) -> AbstractContextManager[bool]:
        """Take one more slot of the stage for the length of the block, if one is free now; says whether it was."""
        ...

    def waiting(self, hold: Hold) -> AbstractContextManager[None]:
        """Let it be seen, for the length of the block, that this visit waits for `hold`."""
        ...

    def waiting_to_send(self, hold: Hold) -> AbstractContextManager[None]:
        """As `waiting`, before an attempt is sent. Raises `CallsClosed` at once, or out of the block wherever that
        awaits, when the run stops making calls; a block that has come to its end has what it waited for."""
        ...

    def without_slot(self) -> AbstractAsyncContextManager[None]:
        """Give the stage's slot back for the length of the block (a wait between attempts), then take it again."""
        ...


class Reply(Protocol):
    """An answer of a model."""

    @property
    def text(self) -> str: ...

    @property
    def parsed(self) -> object:
        """The validated object when a schema was asked for, else None."""
        ...


class OpenModel(Protocol):
    """A model that is open for a run. Its `call` is the full call stack, retries and all."""

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        """Ask the model. Raises `ItemError` with the class of the fault; cancellation cancels the request."""
        ...


class Resource(Protocol[T_co]):
    """A frozen definition of something that lives as long as a run. Equal definitions are opened once a run."""

    def open(self) -> AbstractAsyncContextManager[T_co]: ...


@runtime_checkable
class SharesLimits(Protocol[T_co]):
    """A resource that shares something with others, such as the quota of an account: it is opened within limits."""

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[T_co]:
        """As `Resource.open`, with what it shares in `limits`, which stay open longer than it does."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where input records come from. Iterated once, by one task, from start to end."""

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Input]]:
        """Open the source; the iterator never reads more than one block ahead. Raises `SourceError`."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where records go. A record is settled when `write` has returned."""

    async def write(self, record: Record) -> None: ...
