"""The format is told by the name or by the first line, and what is neither is refused with the way out."""

from __future__ import annotations

import pytest

from pipeline.core.errors import SourceError
from stages.sources.sniff import first_line, format_of


@pytest.mark.parametrize(
    ("head", "line"),
    [
        (b"", None),
        (b"a", None),
        (b"a\n", b"a"),
        (b"\xef\xbb\xbf\r\n  \n{\nb", b"{"),
        (b"\n\n", None),
        (b"x" * 65536, b"x" * 32768),
    ],
)
def test_the_first_line_is_known_when_it_has_ended_or_is_very_long(head: bytes, line: bytes | None) -> None:
    assert first_line(head, b"\n") == line


@pytest.mark.parametrize(
    ("name", "line", "format"),
    [
        ("a.txt", b"{", "text"),
        ("a.TXT", b"[", "text"),
        ("a.jsonl", b"text", "jsonl"),
        ("a.ndjson", b"", "jsonl"),
        ("a.csv", b"{", "csv"),
        ("a.tsv", b"", "tsv"),
        ("a.json", b'{"a":1}', "jsonl"),
        ("a.csv.gz", b"{", "csv"),
        ("a.jsonl.GZ", b"text", "jsonl"),
        ("a.gz", b"Hello", "text"),
        ("a.json", b'{"a":"' + b"x" * 32768, "jsonl"),
        ("stdin", b'{"a":1}', "jsonl"),
        ("stdin", b'{"a":1', "jsonl"),
        ("stdin", b"Hello", "text"),
        ("stdin", b"[INST] Hello [/INST]", "text"),
        ("stdin", b"", "text"),
        ("notes.md", b"# Title", "text"),
    ],
)
def test_a_format_is_recognised(name: str, line: bytes, format: str) -> None:
    assert format_of(name, line, "auto") == format


ARRAY = (
    "{0}: this is a JSON array; JSON Lines has one record a line: jq -c '.[]' {1} "
    "(if its lines are prompts, say that the format is text)"
)


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("a.json", b"[1", ARRAY.format("a.json", "a.json")),
        ("stdin", b"[", ARRAY.format("stdin", "…")),
        ("stdin", b'[ {"a":', ARRAY.format("stdin", "…")),
        ("stdin", b'["a", "b"]', ARRAY.format("stdin", "…")),
        ("a.jsonl", b'[{"a":1}]', ARRAY.format("a.jsonl", "a.jsonl")),
        ("stdin", b"{", "stdin: this is one JSON object over several lines; put it on one: jq -c . …"),
        ("a.json", b'{"a":', "a.json: this is one JSON object over several lines; put it on one: jq -c . a.json"),
        (
            "a.jsonl.xz",
            b"",
            "a.jsonl.xz: of compressed input only gzip is read; unpack it first: xz -dc a.jsonl.xz | penstock run … -",
        ),
        ("a.parquet", b"", "a.parquet: Parquet is not read; export it as JSON Lines first"),
        *(
            ("f", line, "f: this is UTF-16 or UTF-32; convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 f")
            for line in (
                "hi".encode("utf-16"),
                "hi".encode("utf-16-be"),
                "hi".encode("utf-16-le"),
                "hi".encode("utf-32"),
                "hi".encode("utf-32-be"),
            )
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_way_out(name: str, line: bytes, text: str) -> None:
    with pytest.raises(SourceError) as caught:
        format_of(name, line, "auto")
    assert str(caught.value) == text


def test_a_format_that_was_asked_for_is_not_doubted() -> None:
    assert format_of("a.csv", b"[1]", "text") == "text"
    assert format_of("f", b"a\0\0\0", "nul") == "nul"
