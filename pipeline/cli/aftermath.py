"""What is left of a run when it is over, and how one goes on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.cli.exits import LOCKED, OK, REFUSED, SOME_FAILED
from pipeline.cli.kept import Kept
from pipeline.core.codec import encode
from pipeline.core.errors import JournalError
from pipeline.core.statistics import Statistics

State = Literal["finished", "unfinished", "refused"]


@dataclass(frozen=True, slots=True)
class Aftermath:
    """How a run ended. Refused: it has not begun."""

    run: str | None  #: None if it was not kept
    state: State
    code: int
    counts: Mapping[str, int]
    usd: float | None  #: None if a price is unknown
    command: str | None  #: that goes on with it; None if nothing is left, or nothing was kept

    def as_json(self) -> str:
        """One object for programs."""
        cost = {"usd": self.usd}
        said = {"run": self.run, "state": self.state, "code": self.code, "counts": self.counts, "cost": cost}
        return encode({**said, "resume": self.command}).decode()


def aftermath(kept: Kept | None, code: int, now: Statistics | None, *, whole: bool) -> Aftermath:
    """What to tell when the run is over. `whole`: its input has ended and every record with it, as far as one saw."""
    counts = {} if now is None else {status: count for status, count in now.window.settled.items() if count}
    usd = 0.0 if now is None or now.cost is None else now.cost.usd
    if kept is None:
        return Aftermath(None, _state(now, whole), code, counts, usd, None)
    if not kept.opened or code == LOCKED:
        return Aftermath(kept.run, "refused", code, counts, usd, None)
    if whole and kept.input_ended and code in (OK, SOME_FAILED, REFUSED):
        return Aftermath(kept.run, "finished", code, counts, usd, None)
    if _is_done(kept):
        return Aftermath(kept.run, "finished", code, counts, usd, None)
    return Aftermath(kept.run, "unfinished", code, counts, usd, kept.command())


def _state(now: Statistics | None, whole: bool) -> State:
    return "refused" if now is None else "finished" if whole else "unfinished"


def _is_done(kept: Kept) -> bool:
    """Whether the journal has it that all of the input was read, and every record has ended and was written."""
    from pipeline.durability.inspection.overview import overview  # most runs need none

    try:
        return kept.input_ended and overview(kept.directory).is_whole
    except JournalError:
        return False
