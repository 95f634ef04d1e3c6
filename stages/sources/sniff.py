"""Which format an input has: its name says, or else its first line that is not blank.

A guess is made only between formats that the first line tells apart; what can be read as neither is refused with the
command that makes it readable.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Literal, TypeAlias

from pipeline.core.codec import BadJson, decode
from pipeline.core.errors import SourceError
from pipeline.core.inputs import PROMPT_FIELDS
from stages.sources.lines import BOM
from stages.sources.unpacking import SUFFIX

Format: TypeAlias = Literal["text", "nul", "jsonl", "csv", "tsv"]

FORMATS: tuple[Format, ...] = ("text", "nul", "jsonl", "csv", "tsv")

#: Bytes after which the first line is judged by its start, and how much of it is.
HEAD = 65536
LOOK = HEAD // 2

_BY_SUFFIX: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
}
_UNPACK = {".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc", ".zip": "unzip -p"}
_DELIMITERS: tuple[tuple[Literal["csv", "tsv"], bytes], ...] = (("csv", b","), ("tsv", b"\t"))
_COLUMN = re.compile(rb"\w(?:[\w .-]{0,38}\w)?")
_COMMON_COLUMNS = frozenset(name.encode() for name in ("id", *PROMPT_FIELDS))
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def first_line(head: bytes, separator: bytes) -> bytes | None:
    """Return the first line of `head` that is not blank, or None if more bytes are needed to know it."""
    body = head.removeprefix(BOM).lstrip(b" \t\r\n")
    line, end, _ = body.partition(separator)
    if end or len(head) >= HEAD:
        return line[:LOOK]
    return None


def format_of(name: str, line: bytes, asked: Format | Literal["auto"]) -> Format:
    """Return the format of the input `name` whose first line is `line`. Raises `SourceError` if it is none of ours.

    The name of a file that was unpacked counts without its `.gz`.
    """
    _refuse_packed(name, line)
    _refuse_wide(name, line, asked)
    suffix = _suffix(name)
    found = _BY_SUFFIX.get(suffix) if asked == "auto" else asked
    if found is None:
        _refuse_one_document(name, line, suffix)
        return "jsonl" if line.startswith(b"{") or suffix == ".json" else "text"
    if found == "jsonl" and _OPENS_ARRAY.fullmatch(line):
        raise _array(name)
    return found


def is_guess(name: str, asked: Format | Literal["auto"]) -> bool:
    """Say whether the format is neither asked for nor told by the name."""
    return asked == "auto" and _suffix(name) not in _BY_SUFFIX


def table_like(line: bytes) -> Literal["csv", "tsv"] | None:
    """Return what a first line that was taken for text could be as well: a header with a name that records use."""
    for format, delimiter in _DELIMITERS:
        cells = [cell.removeprefix(b'"').removesuffix(b'"') for cell in line.rstrip(b"\r").split(delimiter)]
        if len(cells) > 1 and all(map(_COLUMN.fullmatch, cells)) and _COMMON_COLUMNS.intersection(cells):
            return format
    return None


def _suffix(name: str) -> str:
    return PurePath(name[: -len(SUFFIX)] if name.lower().endswith(SUFFIX) else name).suffix.lower()


def _refuse_packed(name: str, line: bytes) -> None:
    suffix = _suffix(name)
    unpack = _UNPACK.get(suffix)
    if unpack:
        raise SourceError(
            f"{name}: of compressed input only gzip is read; unpack it first: {unpack} {_file(name)} | penstock run … -"
        )
    if suffix == ".parquet" or line.startswith(b"PAR1"):
        raise SourceError(f"{name}: Parquet is not read; export it as JSON Lines first")


def _refuse_wide(name: str, line: bytes, asked: str) -> None:
    """Refuse UTF-16 and UTF-32: by their mark, or because at least two bytes in five of the first line are NUL."""
    nuls = line.count(0)
    if line.startswith(_WIDE_MARKS) or (asked != "nul" and nuls >= 2 and nuls * 5 >= len(line) * 2):
        convert = f"iconv -f UTF-16 -t UTF-8 {_file(name)}"
        raise SourceError(f"{name}: this is UTF-16 or UTF-32; convert it to UTF-8 first: {convert}")


def _refuse_one_document(name: str, line: bytes, suffix: str) -> None:
    """Refuse one JSON document over the whole input; a prompt such as `[INST] …` is text all the same."""
    if line.startswith(b"[") and (suffix == ".json" or _OPENS_ARRAY.fullmatch(line) or _is_json(line) is True):
        raise _array(name)
    if line.rstrip() == b"{" or (suffix == ".json" and line.startswith(b"{") and _is_json(line) is False):
        raise SourceError(f"{name}: this is one JSON object over several lines; put it on one: jq -c . {_file(name)}")


def _array(name: str) -> SourceError:
    command = f"jq -c '.[]' {_file(name)}"
    return SourceError(
        f"{name}: this is a JSON array; JSON Lines has one record a line: {command} (if its lines are prompts, "
        "say that the format is text)"
    )


def _file(name: str) -> str:
    """Return what a command in a hint reads."""
    if name == "stdin":
        return "…"
    return f"<(gzip -dc {name})" if name.lower().endswith(SUFFIX) else name


_OPENS_ARRAY = re.compile(rb"\[\s*(\{.*)?", re.DOTALL)


def _is_json(line: bytes) -> bool | None:
    """Say whether the line is JSON; None if only its start is known."""
    if len(line) >= LOOK:
        return None
    try:
        decode(line.strip())
    except BadJson:
        return False
    return True
