"""What the tests of formats share: parse bytes in given blocks, and tell records shortly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from stages.sources.parsed import Parsed, Parser


def blocks(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def parse(parser: Parser, data: bytes, cuts: Sequence[int] = ()) -> list[Parsed]:
    parsed = [record for block in blocks(data, cuts) for record in parser.feed(block)]
    return parsed + list(parser.finish())


def told(parsed: list[Parsed]) -> list[object]:
    """Every record as its value, or the text of its defect."""
    return [record.value if record.defect is None else record.defect.message for record in parsed]


def comparable(parsed: list[Parsed]) -> list[object]:
    return [(r.line, r.value, None if r.defect is None else r.defect.message, r.raw) for r in parsed]
