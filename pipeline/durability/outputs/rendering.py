"""From a record to its line: the bytes, and which of several files they are for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipeline.core.errors import Failure, ItemError
from pipeline.core.lines import standard_line
from pipeline.core.record import Record
from pipeline.core.targets import Names


@dataclass(frozen=True, slots=True)
class Rendering:
    """How the records of a run become lines."""

    render: Callable[[Record], bytes] = standard_line
    names: Names | None = None

    def lines(self, record: Record) -> tuple[Record, bytes, bytes | None]:
        """The record, its line, and its standard line if that is another one.

        Of a record that has no JSON form these are of its failure, at last without its input.
        """
        try:
            return self._lines(record)
        except ItemError as error:
            record = replace(record, status="failed", output=None, outputs={}, error=Failure.of(error, None))
        try:
            return self._lines(record)
        except ItemError:
            return self._lines(replace(record, input=None))

    def _lines(self, record: Record) -> tuple[Record, bytes, bytes | None]:
        if self.render is standard_line:
            return record, standard_line(record), None
        data, standard = self.render(record), standard_line(record)
        return record, data, None if standard == data else standard

    def target(self, record: Record) -> str:
        """Which of the output's files it is for; empty if there is one or none."""
        return "" if self.names is None or not self.names.varies else self.names.target(record)
