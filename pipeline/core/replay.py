"""What a run with a journal writes of what functions said, and takes from there when the item is run again.

A value is kept if it comes back from the journal as it was: plain JSON, of exact types. What is not kept is asked for
again. What failed is not kept either: nothing depends on a failure before the join or the record is written that it
ends in, and who asks again may have better luck.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Final, cast

from pipeline.core.errors import Failure
from pipeline.core.item import Frame, Item
from pipeline.core.ports import Page
from pipeline.core.usage import Account

MOST_DEPTH: Final = 100  #: of a value that is kept

#: the remark on a value that has no JSON form, or another one than its own
NOT_KEPT: Final = "not_kept"

#: the kind of a fact that says that an item failed at a stage, and as what
FAILED_AT: Final = "failed"

Ask = Callable[[], object]
Remark = Callable[[str], None]


def is_exact(value: object, depth: int = MOST_DEPTH) -> bool:
    """Whether `value` is JSON and nothing else, so that it is the same when it has been written and read."""
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is int:
        return True
    if kind is float:
        return math.isfinite(cast(float, value))
    if not depth:
        return False
    if kind is list:
        return all(is_exact(each, depth - 1) for each in cast("list[object]", value))
    if kind is dict:
        pairs = cast("dict[object, object]", value).items()
        return all(type(key) is str and is_exact(each, depth - 1) for key, each in pairs)
    return False


async def once(kind: str, item: Item, name: str, ask: Ask, remark: Remark | None = None) -> object:
    """What `ask` says, once it has been awaited if it has to be; what it said in an earlier run, if that is known."""
    page = item.frame.root.page
    if page is None:
        answer = ask()
        return await cast("Awaitable[object]", answer) if inspect.isawaitable(answer) else answer
    path = (*item.frame.path(), name)
    found = page.find(kind, path)
    if found is not None:
        return recalled(item.frame, page, found)
    with charged_apart(item.frame) as used:
        answer = ask()
        answer = await cast("Awaitable[object]", answer) if inspect.isawaitable(answer) else answer
        keep(page, kind, path, answer, used, remark)
    return answer


def once_now(kind: str, item: Item, name: str, ask: Ask) -> object:
    """As `once`, of what never waits."""
    page = item.frame.root.page
    if page is None:
        return ask()
    path = (*item.frame.path(), name)
    found = page.find(kind, path)
    if found is not None:
        return recalled(item.frame, page, found)
    answer = ask()
    if not inspect.isawaitable(answer):
        keep(page, kind, path, answer, None)
    return answer


def keep(
    page: Page, kind: str, path: tuple[str, ...], value: object, used: Account | None, remark: Remark | None = None
) -> None:
    """Write `value`, and what was used to come by it, unless it would come back as something else."""
    if is_exact(value):
        page.write(kind, path, [value, None if used is None else used.stored()])
    elif remark is not None:
        remark(NOT_KEPT)


def recalled(frame: Frame, page: Page, found: object) -> object:
    """The value that `keep` wrote; what was used for it is charged again."""
    value, used = cast("list[object]", found)
    charge_again(frame, page, used)
    return value


def charge_again(frame: Frame, page: Page, used: object) -> None:
    """Charge an item with what an earlier run has used for it."""
    if used is not None:
        account = Account.restored(used)
        page.recalled(account.usage, account.cost)
        account.hand_over(frame.account)


@contextmanager
def charged_apart(frame: Frame) -> Generator[Account]:
    """Charge what the item uses within the block to an account of its own, which the item's is given at the end."""
    whole, frame.account = frame.account, Account()
    try:
        yield frame.account
    finally:
        apart, frame.account = frame.account, whole
        apart.hand_over(whole)


def note_failure(item: Item, failure: Failure) -> None:
    """Write where an item failed. Nothing is replayed from it: it tells what is asked anew when the root is to be run
    again because it failed. What may pass by itself is not noted, since no answer is to blame."""
    page = item.frame.root.page
    if page is not None and failure.stage is not None and not failure.retryable:
        page.write(FAILED_AT, (*item.frame.path(), failure.stage), failure.type)


def written_failure(failure: Failure | None) -> object:
    """A failure as the journal has it."""
    return None if failure is None else dict(failure.as_json())


def read_failure(written: object) -> Failure | None:
    """What `written_failure` gave; what caused it is not known any more."""
    return None if written is None else Failure(**cast("Mapping[str, object]", written))  # pyright: ignore[reportArgumentType]
