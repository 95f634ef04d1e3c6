"""An engine that is wrong, in a way that a crash would show: so that it is known that it does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.durability.disk.store import Store
from pipeline.durability.disk.writer import Writer
from pipeline.durability.outputs import projection
from pipeline.durability.page import Page
from pipeline.durability.resume.known import Known
from pipeline.durability.session import Session

UNSYNCED = "the output is marked before it is on the disk"


def send_at_once() -> None:
    async def durable(self: Writer) -> bool:
        return True

    Writer.durable = durable


def deliver_at_once() -> None:
    def when_durable(self: Writer, done: Callable[[], None], **options: Any) -> None:
        done()

    Writer.when_durable = when_durable


def forget_calls() -> None:
    found = Page.find

    def find(self: Page, kind: str, path: tuple[str, ...], ordinal: int = 0) -> object | None:
        return None if kind == "call" else found(self, kind, path, ordinal)

    Page.find = find


def admit_twice() -> None:
    admit = Session.admit

    async def admit_again(self: Session, *args: Any, **options: Any) -> Any:
        self._known = Known(())  # pyright: ignore[reportPrivateUsage]
        return await admit(self, *args, **options)

    Session.admit = admit_again


def lose_lines() -> None:
    commit = Store.commit

    def commit_less(self: Store, rows: Iterable[Any]) -> Any:
        """The last row of a group is forgotten now and then."""
        found = list(rows)
        return commit(self, found[:-1] if len(found) > 5 else found)

    Store.commit = commit_less


def mark_what_is_not_synced() -> None:
    class Lazy:
        """The system's functions, but for the syncs."""

        def __getattr__(self, name: str) -> Any:
            return nothing if name in ("fsync", "fdatasync") else getattr(os, name)

    def nothing(fd: int) -> None:
        pass

    setattr(projection, "os", Lazy())  # noqa: B010


BROKEN: Mapping[str, Callable[[], None]] = {
    "a request is sent before it is in the journal": send_at_once,
    "a record is delivered before it is in the journal": deliver_at_once,
    "a call that was finished is made again": forget_calls,
    "a record that was admitted is admitted again": admit_twice,
    "a group is not committed as a whole": lose_lines,
    UNSYNCED: mark_what_is_not_synced,
}
