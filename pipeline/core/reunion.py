"""What a journal says of batches, to each member: who was in it, and what became of the member.

A batch belongs to no single root, and its members can come to their ends at different times. So each has on its own
page who the others were, and, when the batch was done, its own result: then it goes on by itself in a replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

from pipeline.core.errors import Failure
from pipeline.core.item import Item, Missing
from pipeline.core.record import Status
from pipeline.core.replay import charge_again, is_exact, read_failure, written_failure

MEMBERSHIP: Final = "batch"
END: Final = "batched"


class Membership(NamedTuple):
    """Who was in a batch, in their order. `number` tells it from others in which the same ids were."""

    ids: tuple[str, ...]
    number: int

    def order(self) -> dict[str, int]:
        """The place of each id; of one that was there twice, that of the last."""
        return {id: place for place, id in enumerate(self.ids)}


class Ending(NamedTuple):
    """What became of a member of a batch."""

    status: Status
    value: object = None
    missing: tuple[Missing, ...] = ()  #: what the body had to do without
    failure: Failure | None = None


def write_membership(items: Sequence[Item], label: str, membership: Membership) -> None:
    """Write for each member who is in the batch."""
    for item in items:
        if (page := item.frame.root.page) is not None:
            page.write(MEMBERSHIP, (*item.frame.path(), label), [membership.ids, membership.number])


def membership_before(item: Item, label: str) -> Membership | None:
    """Who was in the batch with `item` in an earlier run."""
    page = item.frame.root.page
    found = None if page is None else page.find(MEMBERSHIP, (*item.frame.path(), label))
    if found is None:
        return None
    ids, number = cast("tuple[list[str], int]", found)
    return Membership(tuple(ids), number)


def write_end(item: Item, label: str, end: Mapping[str, object]) -> None:
    """Write what became of a member, as JSON."""
    if (page := item.frame.root.page) is not None:
        page.write(END, (*item.frame.path(), label), end)


def keep_end(item: Item, label: str, end: Ending, used: object) -> bool:
    """Write what became of a member, and its part of what was used; False if its value would come back as something
    else, so that the batch has to be made again for those who did not get theirs out."""
    if not is_exact(end.value):
        return False
    failure = written_failure(end.failure)
    missing = [list(lack) for lack in end.missing]
    write_end(
        item, label, {"status": end.status, "value": end.value, "missing": missing, "failure": failure, "used": used}
    )
    return True


def end_before(item: Item, label: str) -> Ending | None:
    """What became of `item` in an earlier run; its part is charged again."""
    page = item.frame.root.page
    found = None if page is None else page.find(END, (*item.frame.path(), label))
    if page is None or found is None:
        return None
    end = cast("Mapping[str, object]", found)
    charge_again(item.frame, page, end.get("used"))
    missing = tuple(Missing(*lack) for lack in cast("list[tuple[str, str]]", end.get("missing", [])))
    return Ending(cast(Status, end["status"]), end.get("value"), missing, read_failure(end.get("failure")))
