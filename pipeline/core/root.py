"""One input record's life in a run, from the frame that everything of it hangs on to the record that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from pipeline.core.errors import Failure, InvariantError
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.record import Input, Record
from pipeline.core.state import ConversationState
from pipeline.core.usage import Account

if TYPE_CHECKING:
    from pipeline.core.admission import Window
    from pipeline.core.ports import Page


_NOTHING = Input(None)


class Root(Frame):
    """One input record's life in a run: the bottom frame of every item that comes of it.

    What can change, beyond a frame's own: `live` (frames not retired), `done`, `settled`, `reply` (where a submitted
    root's record goes).
    """

    __slots__ = (
        "cut", "deadline", "done", "id", "index", "live", "page", "record", "reply", "settled", "turn", "window",
        "written",
    )  # fmt: skip

    def __init__(self, window: Window, record: Input, index: int, prefix: str, page: Page | None = None) -> None:
        self.group = window
        self.window = window
        self.slot = ""
        self.parent = None
        self.root = self
        self.keeper = self
        self.names = window.names
        self.revoked = False
        self.retired = False
        self.touched = True
        self.hops = 0
        self.visitor = None
        self.inner = None
        self.record = record
        self.id = record.id if record.id is not None else f"{prefix}{index}"
        self.index = index
        self.turn = index  #: its number among the roots of this run; that in the input, unless there were runs before
        self.page = page  #: what the journal holds of it
        self.live = 0
        self.account = Account()
        self.item = None
        self.deadline: float | None = None
        self.cut = False  #: something of it was cancelled; with a journal it stays open
        self.done = False
        self.settled = False
        self.written = False  #: its end is in the journal, or queued for it
        self.reply: Reply | None = None
        self.grow()

    def names_of_record(self) -> dict[str, object]:
        """What templates see of the record: `input`, and `prompt` if it has one."""
        record = self.record
        names: dict[str, object] = {"input": record.fields if record.fields else {"prompt": record.prompt}}
        if record.prompt is not None:
            names["prompt"] = record.prompt
        return names

    @property
    def place(self) -> tuple[int, ...]:
        """Where its records stand in the order of the input."""
        return (self.turn,)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The ids of the records that it was made of, if it was made of several."""
        return ()

    def grow(self) -> None:
        """Count one more frame; the bound that the pipeline printed holds at every instant."""
        self.live += 1
        window = self.window
        window.alive += 1
        if window.alive > window.peak:
            window.peak = window.alive
            if window.alive > window.bound:
                raise InvariantError(f"{window.alive} items are alive, the bound is {window.bound}")

    def shrink(self) -> None:
        """Count one frame less; the last one of a settled root gives the credit back."""
        self.live -= 1
        self.window.alive -= 1
        if not self.live and self.settled:
            self.forget()
            self.window.release()

    def forget(self) -> None:
        """Let go of what it was made of, once nothing is left of it: a root refers to itself, so until the collector
        comes by it would keep that alive, and with large records that is more than all that is in flight."""
        self.record = _NOTHING
        self.item = None
        if self.page is not None:
            self.page.forget()

    def hold(self) -> None:
        """Keep the credit for something that is no frame of this root, until `let_go`."""
        self.live += 1

    def let_go(self) -> None:
        """What the credit was kept for has ended."""
        self.live -= 1
        if not self.live and self.settled:
            self.forget()
            self.window.release()


class Reply:
    """Where the record of a submitted root is put, for the task that waits for it."""

    __slots__ = ("arrived", "record")

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.record: Record | None = None

    def put(self, record: Record) -> None:
        self.record = record
        self.arrived.set()


def first_item(root: Root) -> Item:
    """The item that enters the pipeline for `root`."""
    return Item(root.record.value, ConversationState(root.record.messages), root)


def record_of(frame: Frame, outcome: Outcome) -> Record:
    """The record that a root, or a child of a root that became several, leaves behind when it ends with `outcome`."""
    root, item = frame.root, outcome.item
    done = outcome.status == "ok" or outcome.status == "partial"
    missing = item.missing if item is not None else ()
    return Record(
        root.id,
        root.index if root.record.position is None else root.record.position,
        outcome.status,
        item.value if done and item is not None else None,
        item.state.outputs if item is not None else {},
        lacking(missing) if done and missing else outcome.failure,
        frame.account.usage,
        frame.account.cost,
        root.record.fields or root.record.value,
        tuple(name for name, _ in missing),
        inputs=root.inputs,
    )


def lacking(missing: tuple[Missing, ...]) -> Failure:
    """Why a record is partial, in the form of an error."""
    return Failure("Partial", None, "; ".join(f"{name}: {reason}" for name, reason in missing))
