"""How the input is read, from the flags that few runs need to the options of the source."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

from pipeline.cli.exits import UsageError


def reading(
    encoding: str | None,
    max_record_bytes: int | None,
    max_bad_items: int | float | None,
    strict: bool,
    keep_empty: bool,
    shard: str | None,
) -> Mapping[str, object]:
    """Return the options that were given. Raises `UsageError`."""
    if encoding is not None:
        _check(encoding)
    asked = {
        "encoding": encoding,
        "max_record_bytes": max_record_bytes,
        "max_bad_items": max_bad_items,
        "strict": strict or None,
        "keep_empty": keep_empty or None,
        "shard": None if shard is None else share(shard),
    }
    return {option: value for option, value in asked.items() if value is not None}


def _check(encoding: str) -> None:
    try:
        codecs.lookup(encoding)
    except (LookupError, ValueError):
        raise UsageError(f"--encoding {encoding!r:.60} is no encoding; write latin-1, cp1252, shift_jis") from None


def share(text: str) -> tuple[int, int]:
    """Read `2/4`. Raises `UsageError`."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard {text!r} is no share: write 1/4 for the first of four, 4/4 for the last")
    return int(found[1]), int(found[2])
