"""Items that crash the process: counted at each opening by what was at work when it died, and given up in the end."""

from __future__ import annotations

from typing import Final, cast

from anyio import Lock

from pipeline.core.errors import ItemError
from pipeline.durability.disk.marks import Left
from pipeline.durability.disk.schema import Statement
from pipeline.durability.disk.store import Store

CRASHES: Final = 3  #: in a row, after which an item is not run again


class Suspected:
    """Roots whose code was at work at a crash. What can change: which, and whose turn it is."""

    def __init__(self) -> None:
        self.roots: set[int] = set()
        self.turn = Lock()  #: one of them is at work at a time, so that the next crash tells whose code it was


_OPEN: Final = "seq NOT IN (SELECT root FROM settled)"


def blamed(left: Left | None, epoch: int) -> tuple[Statement, ...]:
    """What to write of a crash of the run before `epoch`: it is one more of each root whose code was at work.

    Crashes count in a row: a root whose code was not at work when the process died has crashed nothing. Roots that were
    at work at one crash are so one at a time afterwards. So whoever kills healthy runs at random would have to find the
    same code at work each time, while it runs and does not wait.
    """
    if left is None or left.epoch != epoch - 1:
        return ()
    roots = sorted(left.roots)
    innocent = f"seq NOT IN ({', '.join('?' * len(roots))})"
    guilty = f"UPDATE root SET crashes = crashes + 1 WHERE seq = ? AND crashes < {CRASHES} AND {_OPEN}"
    return (
        (f"UPDATE root SET crashes = 0 WHERE crashes BETWEEN 1 AND {CRASHES - 1} AND {innocent}", roots),
        *((guilty, (root,)) for root in roots),
    )


def poisoned(store: Store) -> int:
    """The open roots that are given up."""
    query = f"SELECT count(*) FROM root WHERE crashes >= {CRASHES} AND {_OPEN}"
    return cast(int, next(store.read(query))[0])


def poison(crashes: int) -> ItemError:
    """Why such an item fails."""
    return ItemError(
        f"code that worked on it was running when the process crashed or was killed, {crashes} times in a row",
        type="poison",
    )
