"""How far the files of the input are read in this run, for the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from pipeline.core.progress import Progress, Traced
from pipeline.durability.disk import schema
from pipeline.durability.disk.schema import Row

STDIN: Final = "-"  #: the name of the only input that cannot be read once more


class Reading:
    """What can change: how far the journal knows each file, which never goes back."""

    def __init__(self, before: Sequence[Progress]) -> None:
        self._known = {each.number: each for each in before}
        self._records: Traced | None = None
        self._taken = 0

    def follow(self, records: object) -> None:
        """Follow this source, if it tells how far it is."""
        if isinstance(records, Traced):
            records.trace()
            self._records = records

    def news(self, *, last: bool = False) -> Iterator[Row]:
        """What to write before the next record is admitted: a record is never in the journal without the part of its
        file that it stands in. `last`: no record comes any more."""
        if self._records is None or (self._records.taken == self._taken and not last):
            return
        self._taken = self._records.taken
        for now in self._records.progress():
            known = self._known.get(now.number)
            again = now.name == STDIN and now != known  # it was proved to be the same, or another one is accepted
            if known is None or again or (known.read, known.ended) < (now.read, now.ended):
                self._known[now.number] = now
                yield Row(schema.SOURCE, (now.number, now.name, now.read, now.digest, now.ended))
