"""Bytes of every kind become records or located defects, and never depend on where a block ended."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import SourceError
from stages.sources.csv import CsvParser
from stages.sources.jsonl import JsonlParser
from stages.sources.lines import LineSplitter
from stages.sources.parsed import Origin, Parsed, Parser
from stages.sources.text import TextParser
from tests.sources.reading import comparable, parse, told

PARSERS = {
    "text": lambda limit: TextParser(Origin("f", limit)),
    "nul": lambda limit: TextParser(Origin("f", limit), separator=b"\0"),
    "jsonl": lambda limit: JsonlParser(Origin("f", limit)),
    "csv": lambda limit: CsvParser(Origin("f", limit)),
    "tsv": lambda limit: CsvParser(Origin("f", limit), delimiter="\t"),
}

some_bytes = st.one_of(
    st.binary(max_size=80),
    st.text('ab,"\t\r\n\0 é{}:[]1\ufeff\u2028', max_size=80).map(str.encode),
    st.lists(
        st.sampled_from([b'"', b",", b"\n", b"\r\n", b"a", b'""', b"\t", b"\xff", b"\xef\xbb\xbf", b'{"a":1}'])
    ).map(b"".join),
)


TOO_LONG = (
    "f, line 2, byte 4: the record is longer than 100 bytes (max_record_bytes); it goes on to line {}, so a quote may "
    "be missing"
)
UNCLOSED = (
    "f, line 3, byte 8: a quoted cell is opened in this record and never closed; it goes on to line 4, so a quote may "
    "be missing"
)
RAGGED = "f, line {}, byte {}: the row has {} cells, the header has 2"


def outcome(parser: Parser, data: bytes, cuts: list[int]) -> object:
    try:
        return comparable(parse(parser, data, cuts)), parser.blank_lines
    except SourceError as error:
        return str(error)


@pytest.mark.parametrize("format", PARSERS)
@given(data=some_bytes, cuts=st.lists(st.integers(0, 100), max_size=8), limit=st.sampled_from([1, 3, 10, 1000]))
def test_any_bytes_give_the_same_records_and_defects_whatever_the_blocks(
    format: str, data: bytes, cuts: list[int], limit: int
) -> None:
    make = PARSERS[format]
    assert outcome(make(limit), data, cuts) == outcome(make(limit), data, [])


@given(data=some_bytes, limit=st.sampled_from([1, 3, 1000]))
def test_lines_are_what_splitting_at_lf_gives(data: bytes, limit: int) -> None:
    splitter = LineSplitter(limit)
    lines = [*splitter.feed(data), *splitter.finish()]
    body = data.removeprefix(b"\xef\xbb\xbf")
    expected = body.split(b"\n")
    if not data.split(b"\n")[-1]:
        expected.pop()
    expected = [line.removesuffix(b"\r") for line in expected]
    assert [line.number for line in lines] == list(range(1, len(expected) + 1))
    assert [line.too_long for line in lines] == [len(line) > limit for line in expected]
    assert [line.data for line in lines] == [line[: min(64, limit)] if len(line) > limit else line for line in expected]
    assert all(data[line.offset :].startswith(line.data) for line in lines)


rows = st.lists(st.lists(st.text("ab,\"\n é\t;'", max_size=6), min_size=2, max_size=2), max_size=8)


@given(rows=rows, cuts=st.lists(st.integers(0, 100), max_size=5), ends=st.sampled_from(["\n", "\r\n"]))
def test_what_the_standard_library_writes_as_csv_is_read_back(
    rows: list[list[str]], cuts: list[int], ends: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ends)
    writer.writerow(["x", "y"])
    writer.writerows([row if any(cell.strip() for cell in row) else ["a", "b"] for row in rows])
    parsed = parse(CsvParser(Origin("f", 1000)), text.getvalue().encode(), cuts)
    assert [record.defect for record in parsed] == [None] * len(rows)
    expected = [row if any(cell.strip() for cell in row) else ["a", "b"] for row in rows]
    assert [record.value for record in parsed] == [{"x": x, "y": y} for x, y in expected]


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\r\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", ["a", "\ufeffb"]),
        (b"a\n\n  \n\r\nb\n", ["a", "b"]),
        ("a\u2028b\u0085c\x0bd\x0ce\x1cf\rg\n".encode(), ["a\u2028b\u0085c\x0bd\x0ce\x1cf\rg"]),
        (b"ok\n\xc3\xa9\xff\nok", ["ok", "f, line 2, byte 5: byte 0xff is not UTF-8", "ok"]),
        (
            b"a\0b\nc",
            ["f, line 1, byte 1: a NUL byte; NUL separates prompts in the format nul", "c"],
        ),
        (
            b"0123456789\n0123456789x\r\n",
            ["0123456789", "f, line 2, byte 11: the record is longer than 10 bytes (max_record_bytes)"],
        ),
    ],
)
def test_text_is_one_prompt_a_line(data: bytes, records: list[object]) -> None:
    assert told(parse(TextParser(Origin("f", 10 if b"0123" in data else 1000)), data)) == records


def test_blank_lines_are_counted() -> None:
    for make in (PARSERS["text"], PARSERS["jsonl"]):
        parser = make(100)
        assert parse(parser, b"\n  \n\t\r\n") == []
        assert parser.blank_lines == 3


def test_nul_separates_prompts_that_span_lines() -> None:
    assert told(parse(PARSERS["nul"](100), b"a\nb\r\n\0\0c")) == ["a\nb\r\n", "c"]


def fault(column: int, byte: int, reason: str) -> str:
    return f"f, line 1, column {column}, byte {byte}: {reason}"


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'"a prompt"', "a prompt"),
        (b'{"n":12345678901234567890123, "m":9007199254740993}', {"n": 12345678901234567890123, "m": 9007199254740993}),
        (b'{"s":"\\ud800"}', {"s": "\ud800"}),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b'{"s":"\\u0000"}', {"s": "\0"}),
        ('{"s":"a\u2028\r"}'.replace("\r", "\\r").encode(), {"s": "a\u2028\r"}),
        (b"3", fault(1, 0, "a record is an object or a string, not 3")),
        (b"null", fault(1, 0, "a record is an object or a string, not null")),
        (b"[1]", fault(1, 0, "a record is an object or a string, not a list")),
        (b'{"a":NaN}', fault(6, 5, "not JSON: unexpected character, expected a JSON value")),
        (b'{"a":1e999}', fault(6, 5, "not JSON: number is infinity when parsed as double")),
        (b'{"a":' + b"1" * 5000 + b"}", fault(6, 5, "not JSON: an integer of 5,000 digits")),
        (b'{"a":' + b"[" * 100_000, fault(205, 204, "not JSON: nested deeper than 200")),
        ('{"é":\0}'.encode(), fault(6, 6, "not JSON: a NUL byte")),
        (b'{"a":"\xff"}', fault(7, 6, "not JSON: byte 0xff is not UTF-8")),
    ],
)
def test_a_line_of_json_is_a_record_or_a_located_defect(line: bytes, record: object) -> None:
    assert told(parse(JsonlParser(Origin("f", 200_000)), line)) == [record]


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"a,b\n", []),
        (b"\xef\xbb\xbfa,b\n1,2", [{"a": "1", "b": "2"}]),
        (b'\xef\xbb\xbf"a",b\r\n1,2\r\n', [{"a": "1", "b": "2"}]),
        (b'a,b\n"x\r\ny","say ""hi"""\n', [{"a": "x\r\ny", "b": 'say "hi"'}]),
        (b"a,b\n\n1,2\n  \n", [{"a": "1", "b": "2"}]),
        (b"a,b\n1\n1,2,3\n4,5", [RAGGED.format(2, 4, 1), RAGGED.format(3, 6, 3), {"a": "4", "b": "5"}]),
        (
            b'a,b\n1,x"y\n3,4\n',
            [
                'f, line 2, byte 7: a quote inside a cell without quotes; write "…" around the cell and "" inside it',
                {"a": "3", "b": "4"},
            ],
        ),
        (
            b'a,b\n"1"x,2\n3,4\n',
            ["f, line 2, byte 7: text after the closing quote of a cell", {"a": "3", "b": "4"}],
        ),
        (
            b'a,b\n1,2\n3,"4\n5,6\n',
            [
                {"a": "1", "b": "2"},
                UNCLOSED,
            ],
        ),
        (b"a,b\n1,2\r3\n", [{"a": "1", "b": "2"}, RAGGED.format(3, 8, 1)]),
        (b'a,b\r1,"x\ry"\r\r\r\n3,4\r', [{"a": "1", "b": "x\ry"}, {"a": "3", "b": "4"}]),
        (b"a,b\n1,\0\n", ["f, line 2, byte 6: a NUL byte"]),
        (b"a,b\n1,\xff\n", ["f, line 2, byte 6: byte 0xff is not UTF-8"]),
        (
            b'a,b\n1,"' + b"x\n" * 60 + b'"\n3,4\n',
            [TOO_LONG.format(62), {"a": "3", "b": "4"}],
        ),
        (
            b'a,b\n1,"' + b"x" * 200 + b'\n,"\n3,4\n',
            [TOO_LONG.format(3), {"a": "3", "b": "4"}],
        ),
    ],
)
def test_csv_is_strict_and_a_bad_row_spoils_no_other(data: bytes, records: list[object]) -> None:
    assert told(parse(CsvParser(Origin("f", 100)), data)) == records


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a,a\n", "f: columns 1 and 2 of the header are both named 'a'"),
        (b"a,,b\n", "f: column 2 has no name in the header (the first row)"),
        (
            b"a,\xff\n",
            "f, line 1, byte 2: byte 0xff is not UTF-8 (in the header, the first row, which names the fields)",
        ),
    ],
)
def test_a_bad_header_is_fatal(data: bytes, text: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(CsvParser(Origin("f", 100)), data)
    assert str(caught.value) == text


def test_a_cell_may_be_longer_than_the_standard_library_allows() -> None:
    data = b"a,b\n1," + b"x" * 200_000 + b'\n2,"' + b"y" * 200_000 + b'"\n'
    lengths = [
        len(record.value["b"])
        for record in parse(CsvParser(Origin("f", 1 << 20)), data)
        if isinstance(record.value, dict)
    ]
    assert lengths == [200_000, 200_000]


@pytest.mark.parametrize("format", ["text", "jsonl", "csv", "nul"])
def test_of_a_record_that_is_too_long_only_the_start_is_held(format: str) -> None:
    parser = PARSERS[format](1000)
    piece = b'"' + b"x" * 65534
    seen: list[Parsed] = []
    if format == "csv":
        seen += parser.feed(b"a,b\n")
    for _ in range(40):
        seen += parser.feed(piece)
        assert _bytes_held(parser) < 2 * 65536
    seen += parser.feed(b"\n\0")
    assert len(seen) == 1
    assert "longer than 1,000 bytes" in told(seen)[0]


def _bytes_held(parser: object) -> int:
    splitter = parser._splitter  # the promise is about memory, which cannot be seen from outside
    return sum(len(piece) for piece in splitter._held) + len(getattr(parser, "_held", b""))
