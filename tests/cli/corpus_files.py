"""Inputs of every odd kind: for each condition a file, and what becomes of its records."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

#: a prompt, the fields of a record, or a record that failed
Outcome: TypeAlias = "str | Mapping[str, object] | Bad"


class Bad(NamedTuple):
    """A record that could not be read; `{f}` in the message is the file."""

    message: str


class Case(NamedTuple):
    """One file, the records it has in order, and what is said about it; `{f}` is the file."""

    condition: str
    name: str
    data: bytes
    outcomes: tuple[Outcome, ...]
    said: tuple[str, ...] = ()


class Unreadable(NamedTuple):
    """One file that ends the run before it begins."""

    condition: str
    name: str
    data: bytes
    message: str


ODD = "a\u2028b\u0085c\x0bd\x0ce\x1cf\u2029g\rh"
TWICE = "{f}, line 1, column 15, byte 14: the key 'prompt' comes twice in one object; the last one counts (said once)"
LONG = "the record is longer than 4,194,304 bytes (max_record_bytes)"

GOOD = (
    Case("BOM at the start, text", "bom.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ("one", "\ufefftwo")),
    Case("BOM at the start, JSONL", "bom.jsonl", b'\xef\xbb\xbf{"prompt":"one"}\n', ({"prompt": "one"},)),
    Case("BOM at the start, CSV", "bom.csv", b"\xef\xbb\xbfprompt\none\n", ({"prompt": "one"},)),
    Case("LF, CRLF and mixed", "ends.txt", b"one\r\ntwo\nthree\r\n", ("one", "two", "three")),
    Case("LF, CRLF and mixed, JSONL", "ends.jsonl", b'"one"\r\n"two"\n', ("one", "two")),
    Case("LF, CRLF and mixed, CSV", "ends.csv", b"prompt\r\none\r\ntwo\n", ({"prompt": "one"}, {"prompt": "two"})),
    Case("CR alone is data in text", "cr.txt", b"one\rtwo\n", ("one\rtwo",)),
    Case("CR alone is space in JSONL", "cr.jsonl", b'{"prompt":\r"one"}\n', ({"prompt": "one"},)),
    Case("CR alone ends a row of CSV", "cr.csv", b"prompt\rone\rtwo\r", ({"prompt": "one"}, {"prompt": "two"})),
    Case("other line ends are data", "odd.txt", ODD.encode() + b"\n", (ODD,)),
    Case("missing final newline, text", "end.txt", b"one\ntwo", ("one", "two")),
    Case("missing final newline, JSONL", "end.jsonl", b'"one"\n"two"', ("one", "two")),
    Case("missing final newline, CSV", "end.csv", b"prompt\none", ({"prompt": "one"},)),
    Case("empty lines, text", "blank.txt", b"\none\n\n  \t\n", ("one",), ("{f}: 3 blank lines skipped",)),
    Case("empty lines, JSONL", "blank.jsonl", b'\n"one"\n\r\n', ("one",), ("{f}: 2 blank lines skipped",)),
    Case("empty lines, CSV", "blank.csv", b"\nprompt\n\none\n", ({"prompt": "one"},), ("{f}: 2 blank lines skipped",)),
    Case("empty input, text", "empty.txt", b"", ()),
    Case("empty input, JSONL", "empty.jsonl", b"", ()),
    Case("empty input, CSV", "empty.csv", b"", ()),
    Case("NUL as an escape", "nul.jsonl", b'{"prompt":"a\\u0000b"}\n', ({"prompt": "a\0b"},)),
    Case("a record as long as may be", "longest.txt", b"x" * 4_194_304 + b"\r\n", ("x" * 4_194_304,)),
    Case(
        "integers beyond 2^53",
        "big.jsonl",
        b'{"prompt":"x","n":9007199254740993,"m":123456789012345678901234567890}\n',
        ({"prompt": "x", "n": 9007199254740993, "m": 123456789012345678901234567890},),
    ),
    Case(
        "duplicate keys",
        "twice.jsonl",
        b'{"prompt":"a","prompt":"b"}\n{"prompt":"c","prompt":"d"}\n',
        ({"prompt": "b"}, {"prompt": "d"}),
        (TWICE,),
    ),
    Case("lone surrogates", "surrogate.jsonl", b'{"prompt":"x\\ud800y"}\n', ({"prompt": "x\ud800y"},)),
    Case("a string is a prompt", "string.jsonl", b'"\\u00e9"\n', ("é",)),
    Case("the same record twice", "same.txt", b"same\nsame\n", ("same", "same")),
    Case("CSV field above 131,072", "field.csv", b"prompt\n" + b"x" * 140_000 + b"\n", ({"prompt": "x" * 140_000},)),
    Case("compressed text", "packed.txt.gz", gzip.compress(b"one\ntwo"), ("one", "two")),
    Case("compressed JSONL", "packed.jsonl.gz", gzip.compress(b'"one"\n') + gzip.compress(b'"two"\n'), ("one", "two")),
    Case(
        "compressed, and its name does not say so", "packed", gzip.compress(b'{"prompt":"one"}\n'), ({"prompt": "one"},)
    ),
    Case("compressed and empty", "nothing.txt.gz", gzip.compress(b""), ()),
    Case("what terminals obey", "evil.txt", b"\x1b]0;owned\x07\n", ("\x1b]0;owned\x07",)),
)

#: in each of these the records at fault fail alone
BAD = (
    Case(
        "bytes that are not UTF-8, text",
        "utf8.txt",
        b"one\ntwo \xff\nthree\n",
        ("one", Bad("{f}, line 2, byte 8: byte 0xff is not UTF-8"), "three"),
    ),
    Case(
        "bytes that are not UTF-8, JSONL",
        "utf8.jsonl",
        b'"one"\n{"prompt":"\xe9"}\n',
        ("one", Bad("{f}, line 2, column 12, byte 17: not JSON: byte 0xe9 is not UTF-8")),
    ),
    Case(
        "bytes that are not UTF-8, CSV",
        "utf8.csv",
        b"prompt\n\xff\none\n",
        (Bad("{f}, line 2, byte 7: byte 0xff is not UTF-8"), {"prompt": "one"}),
    ),
    Case(
        "NUL bytes, text",
        "nul.txt",
        b"a\0b\none\n",
        (Bad("{f}, line 1, byte 1: a NUL byte; NUL separates prompts in the format nul"), "one"),
    ),
    Case(
        "NUL bytes, JSONL",
        "nuls.jsonl",
        b'{"prompt":"a\0"}\n"one"\n',
        (Bad("{f}, line 1, column 13, byte 12: not JSON: a NUL byte"), "one"),
    ),
    Case(
        "NUL bytes, CSV", "nul.csv", b"prompt\na\0\none\n", (Bad("{f}, line 2, byte 8: a NUL byte"), {"prompt": "one"})
    ),
    Case(
        "a record that is too long, text",
        "long.txt",
        b"x" * 5_000_000 + b"\none\n",
        (Bad(f"{{f}}, line 1, byte 0: {LONG}"), "one"),
    ),
    Case(
        "a record that is too long, JSONL",
        "long.jsonl",
        b'"one"\n{"prompt":"' + b"x" * 5_000_000 + b'"}\n',
        ("one", Bad(f"{{f}}, line 2, byte 6: {LONG}")),
    ),
    Case(
        "a record that is too long, CSV",
        "long.csv",
        b"prompt\n" + b"x" * 5_000_000 + b"\none\n",
        (Bad(f"{{f}}, line 2, byte 7: {LONG}"), {"prompt": "one"}),
    ),
    Case(
        "a compressed record that is far too long",
        "bomb.txt.gz",
        gzip.compress(b"x" * 50_000_000 + b"\none\n"),
        (Bad(f"{{f}}, line 1, byte 0: {LONG}"), "one"),
    ),
    Case(
        "invalid JSON",
        "broken.jsonl",
        b'{"prompt":"one"}\n{"prompt":}\n',
        (
            {"prompt": "one"},
            Bad("{f}, line 2, column 11, byte 27: not JSON: unexpected character, expected a JSON value"),
        ),
    ),
    Case(
        "integers of more than 4,300 digits",
        "digits.jsonl",
        b'{"n":' + b"9" * 4301 + b"}\n",
        (Bad("{f}, line 1, column 6, byte 5: not JSON: an integer of 4,301 digits"),),
    ),
    Case(
        "nesting of 100,000",
        "deep.jsonl",
        b"[" * 100_000 + b"\n",
        (Bad("{f}, line 1, column 201, byte 200: not JSON: nested deeper than 200"),),
    ),
    Case(
        "JSON that is no object",
        "list.jsonl",
        b"[1]\n7\nnull\n",
        (
            Bad("{f}, line 1, column 1, byte 0: a record is an object or a string, not a list"),
            Bad("{f}, line 2, column 1, byte 4: a record is an object or a string, not 7"),
            Bad("{f}, line 3, column 1, byte 6: a record is an object or a string, not null"),
        ),
    ),
    Case(
        "wrong types in a conversation",
        "roles.jsonl",
        b'{"messages":[{"role":"user","content":"a"},{"role":"boss","content":"b"}]}\n'
        b'{"messages":[{"role":"user","content":7}]}\n',
        (
            Bad("{f}, line 1: messages[1].role is 'boss'; roles are system, user, assistant, tool"),
            Bad("{f}, line 2: messages[0].content is the number 7; content is text, or a list of text parts"),
        ),
    ),
    Case(
        "duplicate ids",
        "ids.jsonl",
        b'{"id":"dup","prompt":"a"}\n{"id":"dup","prompt":"b"}\n',
        ({"id": "dup", "prompt": "a"}, Bad("{f}, line 2: id 'dup' was given before, by {f}, line 1")),
    ),
    Case(
        "CSV: unbalanced quote",
        "quote.csv",
        b'prompt\none\n"two\nthree\n',
        (
            {"prompt": "one"},
            Bad(
                "{f}, line 3, byte 11: a quoted cell is opened in this record and never closed; it goes on to line 4, "
                "so a quote may be missing"
            ),
        ),
    ),
    Case(
        "CSV: unbalanced quote that swallows more than a record may have",
        "swallow.csv",
        b'prompt\n"one\n' + b"two\n" * 1_100_000,
        (
            Bad(
                "{f}, line 2, byte 7: a quoted cell is opened in this record and never closed; it goes on to line "
                "1100002, so a quote may be missing"
            ),
        ),
    ),
    Case(
        "CSV: ragged rows",
        "ragged.csv",
        b"prompt,x\none\ntwo,2\nthree,3,4\n",
        (
            Bad("{f}, line 2, byte 9: the row has 1 cells, the header has 2"),
            {"prompt": "two", "x": "2"},
            Bad("{f}, line 4, byte 19: the row has 3 cells, the header has 2"),
        ),
    ),
)

WIDE = "{f}: this is UTF-16 or UTF-32; convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 {f}"
WIDE_PACKED = WIDE.removesuffix("{f}") + "<(gzip -dc {f})"
PACKED = "{f}: of compressed input only gzip is read; unpack it first: {by} -dc {f} | penstock run … -"

#: each of these is refused before the first record of any input
UNREADABLE = (
    Unreadable("UTF-16 with BOM", "u16.txt", "hello\n".encode("utf-16"), WIDE),
    Unreadable("UTF-16 without BOM", "u16.jsonl", '{"prompt":"x"}\n'.encode("utf-16-le"), WIDE),
    Unreadable("UTF-32", "u32.csv", "prompt\nx\n".encode("utf-32"), WIDE),
    Unreadable("UTF-16 compressed", "u16.txt.gz", gzip.compress("hello\n".encode("utf-16")), WIDE_PACKED),
    Unreadable(
        "CSV: duplicate headers", "same.csv", b"a,b,a\n1,2,3\n", "{f}: columns 1 and 3 of the header are both named 'a'"
    ),
    Unreadable("CSV: empty headers", "none.csv", b"a,,c\n", "{f}: column 2 has no name in the header (the first row)"),
    Unreadable(
        "CSV: a header that is no CSV",
        "header.csv",
        b'a,"b\n',
        "{f}, line 1, byte 0: a quoted cell is opened in this record and never closed (in the header, the first row, "
        "which names the fields)",
    ),
    Unreadable(
        "one JSON array",
        "array.json",
        b'[{"prompt":"x"}]',
        "{f}: this is a JSON array; JSON Lines has one record a line: jq -c '.[]' {f} (if its lines are prompts, say "
        "that the format is text)",
    ),
    Unreadable(
        "one JSON object over several lines",
        "object.json",
        b'{\n"prompt": "x"\n}\n',
        "{f}: this is one JSON object over several lines; put it on one: jq -c . {f}",
    ),
    Unreadable("other compression", "a.jsonl.xz", b"\xfd7zXZ", PACKED.replace("{by}", "xz")),
    Unreadable(
        "gz by name alone",
        "text.gz",
        b"text\n",
        "{f}: is not gzip, whatever its name says; give it another name, or make it again",
    ),
    Unreadable(
        "gz that is damaged from the start",
        "damaged.gz",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff\xff\xff\xff",
        "{f}: the compressed data is damaged (invalid block type), after 0 bytes, 0 unpacked",
    ),
)
