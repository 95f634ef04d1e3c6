"""Tables, each a file of its own: quotes, line ends, rows that do not fit, and what a bad row leaves of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

Row: TypeAlias = "Mapping[str, str] | Fault"

LIMIT = 204_800  #: bytes, the longest record

AFTER = {"a": "3", "b": "4"}

QUOTE = 'a quote inside a cell without quotes; write "…" around the cell and "" inside it'
CLOSED = "text after the closing quote of a cell"
OPEN = "a quoted cell is opened in this record and never closed"
LONG = "the record is longer than 204,800 bytes (max_record_bytes)"


class Fault(NamedTuple):
    """A row that cannot be read: where it begins, the byte at fault, and why."""

    line: int
    byte: int
    reason: str


class Table(NamedTuple):
    """One file, and its rows in order."""

    name: str
    data: bytes
    rows: tuple[Row, ...]


TABLES = (
    Table("plain", b"a,b\n1,2\n", ({"a": "1", "b": "2"},)),
    Table("no final newline", b"a,b\n1,2", ({"a": "1", "b": "2"},)),
    Table("crlf", b"a,b\r\n1,2\r\n", ({"a": "1", "b": "2"},)),
    Table("cr alone", b"a,b\r1,2\r", ({"a": "1", "b": "2"},)),
    Table("mixed ends", b"a,b\r\n1,2\n3,4\r5,6", ({"a": "1", "b": "2"}, AFTER, {"a": "5", "b": "6"})),
    Table("bom", b"\xef\xbb\xbfa,b\n1,2\n", ({"a": "1", "b": "2"},)),
    Table("bom before a quote", b'\xef\xbb\xbf"a",b\n1,2\n', ({"a": "1", "b": "2"},)),
    Table("header alone", b"a,b\n", ()),
    Table("blank lines", b"\n\na,b\n\n1,2\n  \n\t\n", ({"a": "1", "b": "2"},)),
    Table("quoted", b'a,b\n"1","2"\n', ({"a": "1", "b": "2"},)),
    Table("comma in quotes", b'a,b\n"1,5",2\n', ({"a": "1,5", "b": "2"},)),
    Table("newline in quotes", b'a,b\n"1\n5",2\n', ({"a": "1\n5", "b": "2"},)),
    Table("crlf in quotes", b'a,b\n"1\r\n5",2\r\n', ({"a": "1\r\n5", "b": "2"},)),
    Table("cr in quotes", b'a,b\n"1\r5",2\n', ({"a": "1\r5", "b": "2"},)),
    Table("blank lines in quotes", b'a,b\n"1\n\n\n5",2\n', ({"a": "1\n\n\n5", "b": "2"},)),
    Table("doubled quotes", b'a,b\n"say ""hi""",2\n', ({"a": 'say "hi"', "b": "2"},)),
    Table("only a doubled quote", b'a,b\n"""",2\n', ({"a": '"', "b": "2"},)),
    Table("two doubled quotes", b'a,b\n"""""",2\n', ({"a": '""', "b": "2"},)),
    Table("empty quotes", b'a,b\n"",""\n', ({"a": "", "b": ""},)),
    Table("empty cells", b"a,b\n,\n", ({"a": "", "b": ""},)),
    Table("spaces are data", b"a,b\n 1 , 2\n", ({"a": " 1 ", "b": " 2"},)),
    Table("apostrophes", b"a,b\n'1','2'\n", ({"a": "'1'", "b": "'2'"},)),
    Table("backslash is data", b'a,b\n\\n,"\\"\n', ({"a": "\\n", "b": "\\"},)),
    Table("json in a cell", b'a,b\n"{""x"":[1,2]}",2\n', ({"a": '{"x":[1,2]}', "b": "2"},)),
    Table("unicode", 'a,b\né,"😀,\u2028"\n'.encode(), ({"a": "é", "b": "😀,\u2028"},)),
    Table("formulas are data", b"a,b\n=1+1,@x\n", ({"a": "=1+1", "b": "@x"},)),
    Table("one column", b"a\n1\n2\n", ({"a": "1"}, {"a": "2"})),
    Table("column with space in its name", b"a b,c\n1,2\n", ({"a b": "1", "c": "2"},)),
    Table("quoted header over two lines", b'"a\nb",c\n1,2\n', ({"a\nb": "1", "c": "2"},)),
    Table("record ends with quote and crlf", b'a,b\n1,"2"\r\n3,4\n', ({"a": "1", "b": "2"}, AFTER)),
    Table("field of 200 kB", b"a,b\n1," + b"x" * 200_000 + b"\n", ({"a": "1", "b": "x" * 200_000},)),
    Table("too few", b"a,b\n1\n3,4\n", (Fault(2, 4, "the row has 1 cells, the header has 2"), AFTER)),
    Table("too many", b"a,b\n1,2,3\n3,4\n", (Fault(2, 4, "the row has 3 cells, the header has 2"), AFTER)),
    Table("trailing comma", b"a,b\n1,2,\n3,4\n", (Fault(2, 4, "the row has 3 cells, the header has 2"), AFTER)),
    Table("semicolons", b"a,b\n1;2\n3,4\n", (Fault(2, 4, "the row has 1 cells, the header has 2"), AFTER)),
    Table("quote inside", b'a,b\n1,x"y\n3,4\n', (Fault(2, 7, QUOTE), AFTER)),
    Table("quotes inside, even", b'a,b\nx "y" z,2\n3,4\n', (Fault(2, 6, QUOTE), AFTER)),
    Table("space before quote", b'a,b\n1, "2"\n3,4\n', (Fault(2, 7, QUOTE), AFTER)),
    Table("space after quote", b'a,b\n"1" ,2\n3,4\n', (Fault(2, 7, CLOSED), AFTER)),
    Table("text after quote", b'a,b\n"1"x,2\n3,4\n', (Fault(2, 7, CLOSED), AFTER)),
    Table("backslash escape", b'a,b\n"say \\"hi\\"",2\n3,4\n', (Fault(2, 11, CLOSED), AFTER)),
    Table(
        "quote never closed",
        b'a,b\n1,2\n3,"4\n5,6\n7,8\n',
        ({"a": "1", "b": "2"}, Fault(3, 8, f"{OPEN}; it goes on to line 5, so a quote may be missing")),
    ),
    Table("quote never closed at the end", b'a,b\n1,2\n3,"4', ({"a": "1", "b": "2"}, Fault(3, 8, OPEN))),
    Table(
        "quote never closed at the limit",
        b'a,b\n1,"' + b"x,y\n" * 60_000 + b'"\n3,4\n',
        (Fault(2, 4, f"{LONG}; it goes on to line 60002, so a quote may be missing"), AFTER),
    ),
    Table("nul", b"a,b\n1,\0\n3,4\n", (Fault(2, 6, "a NUL byte"), AFTER)),
    Table("nul in quotes", b'a,b\n1,"x\n\0"\n3,4\n', (Fault(2, 9, "a NUL byte"), AFTER)),
    Table("not utf-8", b"a,b\n1,\xe9\n3,4\n", (Fault(2, 6, "byte 0xe9 is not UTF-8"), AFTER)),
    Table(
        "not utf-8 in a cell of two lines", b'a,b\n"x\n\xff",1\n3,4\n', (Fault(2, 7, "byte 0xff is not UTF-8"), AFTER)
    ),
    Table("too long", b"a,b\n1," + b"x" * 300_000 + b"\n3,4\n", (Fault(2, 4, LONG), AFTER)),
)
