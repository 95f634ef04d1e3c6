"""Records as lines of bytes: the standard form, which every output has unless something else is asked for."""

from __future__ import annotations

from pipeline.core.codec import encode_line
from pipeline.core.record import Record


def standard_line(record: Record) -> bytes:
    """The record as it is written to an output. Raises `NotJson`."""
    return encode_line(record.standard())
