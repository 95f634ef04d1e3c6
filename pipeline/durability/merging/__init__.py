"""Outputs of the shares of one input to one output: checked as a whole first, then written, in input order if asked.

Nothing is written before all is known to be right. Memory does not grow with the outputs: ids are compared sorted, on
disk if they are many, and a file whose records are in order already is merged as it is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from heapq import merge, nsmallest
from itertools import pairwise

from pipeline.core.record import STATUSES, Status
from pipeline.durability.merging.outputs import BadOutput, Entry, OutputFile, entry_of
from pipeline.durability.merging.sorting import SortedRuns

MOST_TOLD = 10  #: faults, or places, that are told one by one
_DIGEST, _NUMBER = 16, 8


@dataclass(frozen=True, slots=True)
class Checked:
    """Outputs that can be merged."""

    files: Sequence[OutputFile]
    in_order: Sequence[bool]  #: of each file, whether its records are in input order
    statuses: Mapping[Status, int]  #: records of each status that there is, in the order of `STATUSES`


@dataclass(slots=True)
class Gaps:
    """Which positions of the input have no record, and which have records of several inputs. Changes as it hears of
    places in order."""

    missing: int = 0
    examples: list[int] = field(default_factory=list[int])
    shared: int = 0  #: positions that several records have which are not of one root
    _next: int = 0

    def hear(self, entry: Entry) -> None:
        """Take the next record in order."""
        if entry.index >= self._next:
            self.missing += entry.index - self._next
            room = MOST_TOLD - len(self.examples)
            self.examples += range(self._next, min(entry.index, self._next + room))
            self._next = entry.index + 1
        elif not entry.child:
            self.shared += 1


def check(files: Sequence[OutputFile]) -> Checked:
    """Read all outputs once. Raises one `BadOutput` for what is wrong in them: torn lines, no records, ids twice."""
    problems: list[str] = []
    in_order: list[bool] = []
    statuses: Counter[Status] = Counter()
    with SortedRuns() as ids:
        for position, output in enumerate(files):
            try:
                in_order.append(_checked(output, position, ids, statuses))
            except BadOutput as error:
                problems.append(str(error))
        repeated = _repeated(files, ids)
    if problems or repeated:
        raise BadOutput("\n".join([*problems, *repeated]))
    return Checked(files, in_order, {status: statuses[status] for status in STATUSES if statuses[status]})


def lines(checked: Checked, *, ordered: bool, gaps: Gaps | None = None) -> Iterator[bytes]:
    """Yield the lines of all outputs: one file after the other, or in input order, which `gaps` then hears of."""
    if not ordered:
        for output in checked.files:
            for entry in output.entries():
                yield entry.line
        return
    with ExitStack() as stack:
        sources = [
            output.entries() if in_order else _sorted(output, stack.enter_context(SortedRuns()))
            for output, in_order in zip(checked.files, checked.in_order, strict=True)
        ]
        for entry in merge(*sources, key=lambda entry: entry.place):
            if gaps is not None:
                gaps.hear(entry)
            yield entry.line


def _checked(output: OutputFile, position: int, ids: SortedRuns, statuses: Counter[Status]) -> bool:
    """Count and note the records of one output, and say whether they are in input order. Raises `BadOutput`."""
    in_order = True
    last: tuple[int, tuple[int, ...]] = (-1, ())
    for entry in output.entries():
        statuses[entry.status] += 1
        in_order = in_order and last <= entry.place
        last = entry.place
        digest = blake2b(entry.id.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
        ids.add(digest + position.to_bytes(_NUMBER) + entry.number.to_bytes(_NUMBER))
    return in_order


def _repeated(files: Sequence[OutputFile], ids: SortedRuns) -> list[str]:
    """Tell of the first records whose ids came before, and how many more there are."""
    count = 0

    def repeated() -> Iterator[tuple[bytes, bytes]]:
        nonlocal count
        for one, other in pairwise(ids.entries()):
            if one[:_DIGEST] == other[:_DIGEST]:
                count += 1
                yield other[_DIGEST:], one[_DIGEST:]

    first = nsmallest(MOST_TOLD, repeated())
    told = [f"{_place(files, other)}: its id is also that of {_place(files, one)}" for other, one in first]
    return [*told, f"and {count - len(told):,} more"] if count > len(told) else told


def _place(files: Sequence[OutputFile], place: bytes) -> str:
    return f"{files[int.from_bytes(place[:_NUMBER])].name}, line {int.from_bytes(place[_NUMBER:])}"


def _sorted(output: OutputFile, runs: SortedRuns) -> Iterator[Entry]:
    """Yield the records of an output that is not in order, in order; those with equal places as they come in it."""
    for entry in output.entries():
        runs.add(_key(entry) + entry.line)
    for packed in runs.entries():
        at = _NUMBER
        while packed[at]:
            at += 1 + _NUMBER
        start = at + 1 + _NUMBER
        yield entry_of(packed[start:], int.from_bytes(packed[at + 1 : start]))


def _key(entry: Entry) -> bytes:
    """Return bytes that compare as places do, and then as lines; a 0 ends the place, a 1 stands before each step."""
    steps = b"".join(b"\1" + step.to_bytes(_NUMBER) for step in entry.child)
    return entry.index.to_bytes(_NUMBER) + steps + b"\0" + entry.number.to_bytes(_NUMBER)
