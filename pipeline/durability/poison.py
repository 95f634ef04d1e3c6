"""Items that crash the process: counted at each opening by what was at work when it died, and given up in the end."""

from __future__ import annotations

from typing import Final, cast

from pipeline.core.errors import ItemError
from pipeline.durability.marks import Left
from pipeline.durability.reopening import Statement
from pipeline.durability.store import Store

CRASHES: Final = 3  #: in a row, after which an item is not run again

_OPEN: Final = "seq NOT IN (SELECT root FROM settled)"
_MOVED: Final = "EXISTS (SELECT 1 FROM attempt WHERE root = seq AND epoch = ? AND state IN ('ok', 'failed', 'refused'))"


def blamed(left: Left | None, epoch: int) -> tuple[Statement, ...]:
    """What to write of a crash of the run before `epoch`: it is one more of each root whose code was at work.

    Crashes count in a row. A root whose code was not at work when the process died has crashed nothing, and one that
    came further than in the run before, by an answer of a model, begins with one again: whoever kills healthy runs at
    random finds the same code at work, with nothing new done, three times running hardly ever.
    """
    if left is None or left.epoch != epoch - 1:
        return ()
    roots = sorted(left.roots)
    innocent = f"seq NOT IN ({', '.join('?' * len(roots))})"
    guilty = (
        f"UPDATE root SET crashes = CASE WHEN crashes > 0 AND {_MOVED} THEN 1 ELSE crashes + 1 END"
        f" WHERE seq = ? AND crashes < {CRASHES} AND {_OPEN}"
    )
    return (
        (f"UPDATE root SET crashes = 0 WHERE crashes BETWEEN 1 AND {CRASHES - 1} AND {innocent}", roots),
        *((guilty, (left.epoch, root)) for root in roots),
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
