"""Keys that come twice in one object of JSON, which parsers pass over: the last one counts, and nobody is told."""

from __future__ import annotations

import re

from pipeline.core.codec import decode

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"(\s*+:)?|[{}\[\]]', re.DOTALL)


def repeated_key(data: bytes, value: dict[str, object]) -> tuple[str, int] | None:
    """Return the first key that comes again in its object, and the byte where it does; `value` is what `data` says.

    `data` is valid JSON. An object without others inside and without colons in its texts costs one count of bytes.
    """
    if data.count(b":") == len(value):
        return None
    open_objects: list[set[str] | None] = []
    for token in _TOKEN.finditer(data):
        if token[1] is not None:
            seen, key = open_objects[-1], _key(token[0][: -len(token[1])])
            if seen is not None and key in seen:
                return key, token.start()
            if seen is not None:
                seen.add(key)
        elif token[0] == b"{":
            open_objects.append(set())
        elif token[0] == b"[":
            open_objects.append(None)
        elif token[0] in b"}]":
            open_objects.pop()
    return None


def _key(quoted: bytes) -> str:
    return str(decode(quoted)) if b"\\" in quoted else quoted[1:-1].decode()
