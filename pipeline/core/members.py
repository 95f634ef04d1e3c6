"""How the members of a group stand: what a join that is a function is given to decide by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias

from pipeline.core.record import Status

Verdict: TypeAlias = Literal["ok", "partial", "failed"]

VERDICTS: tuple[Verdict, ...] = ("ok", "partial", "failed")


class Ended(NamedTuple):
    """A member that has ended."""

    status: Status
    value: object = None  #: its output, when it is ok or partial
    reason: str = ""  #: why it failed, when it did


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a group at one instant, in declaration order whatever the timing."""

    slots: tuple[str, ...]  #: every member so far
    ended: Mapping[str, Ended]
    complete: bool = True  #: no member will be added
    late: bool = False  #: the time of the group is up

    @property
    def open(self) -> int:
        """How many have not ended."""
        return len(self.slots) - len(self.ended)

    @property
    def done(self) -> bool:
        """Whether nothing more will happen."""
        return self.complete and not self.open

    @property
    def values(self) -> dict[str, object]:
        """The outputs of the members that are ok or partial, by slot."""
        return {slot: member.value for slot, member in self.ended.items() if member.status in ("ok", "partial")}

    def __deepcopy__(self, memo: dict[int, object]) -> Members:
        """A mapping that cannot be changed cannot be copied by itself either."""
        return Members(self.slots, MappingProxyType(deepcopy(dict(self.ended), memo)), self.complete, self.late)


#: A join of one's own: says how the group ends, or None while it may still go either way.
JoinFunction: TypeAlias = Callable[[Members], Verdict | None]
