"""Reads JSON into marked nodes, strictly: one value, no key twice, no NaN.

The standard reader does not tell where a value stands, so this one walks the text itself and leaves only strings to it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from json import JSONDecodeError, JSONDecoder
from math import isfinite
from typing import NoReturn

from pipeline.config.nodes import Entry, Listing, Mark, Node, Scalar, Table
from pipeline.config.tree import Limits, Reject

_SPACE = re.compile(r"[ \t\r\n]*")
_ATOM = re.compile(r"true|false|null|-?(?:0|[1-9][0-9]{0,300})(?:\.[0-9]{1,400})?(?:[eE][-+]?[0-9]{1,3})?(?![\w.])")
_STRINGS = JSONDecoder()
_WORDS = {"true": True, "false": False, "null": None}


def read_json(text: str) -> Node:
    """Return the document. Raises `Reject`."""
    return _JsonReader(text).read()


class _JsonReader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._limits = Limits()
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def read(self) -> Node:
        node = self._value(1)
        self._skip_space()
        if self._at < len(self._text):
            self._fail("one value, and something follows it")
        return node

    def _value(self, depth: int) -> Node:
        self._skip_space()
        start = self._at
        self._limits.enter(depth, self._mark(start))
        match self._text[start : start + 1]:
            case "{":
                return self._table(start, depth)
            case "[":
                return self._listing(start, depth)
            case '"':
                text = self._string()
                return Scalar(text, text, self._mark(start))
            case _:
                return self._atom(start)

    def _table(self, start: int, depth: int) -> Table:
        entries: dict[str, Entry] = {}
        self._at += 1
        while not self._ends("}", first=not entries):
            self._skip_space()
            at = self._at
            key = self._string()
            mark = self._mark(at)
            if key in entries:
                line = entries[key].mark.line
                raise Reject("E106", f"the key {key[:60]!r} is already used in line {line}", mark)
            self._skip_space()
            if self._text[self._at : self._at + 1] != ":":
                self._fail("expected ':' after a key")
            self._at += 1
            entries[key] = Entry(key, mark, self._value(depth + 1))
        return Table(tuple(entries.values()), self._mark(start))

    def _listing(self, start: int, depth: int) -> Listing:
        items: list[Node] = []
        self._at += 1
        while not self._ends("]", first=not items):
            items.append(self._value(depth + 1))
        return Listing(tuple(items), self._mark(start))

    def _ends(self, close: str, *, first: bool) -> bool:
        """Step over the closing bracket, or over the comma before the next member."""
        self._skip_space()
        char = self._text[self._at : self._at + 1]
        if char == close:
            self._at += 1
            return True
        if not first:
            if char != ",":
                self._fail(f"expected ',' or '{close}'")
            self._at += 1
        return False

    def _string(self) -> str:
        if self._text[self._at : self._at + 1] != '"':
            self._fail('expected text in "quotes"')
        try:
            text, self._at = _STRINGS.raw_decode(self._text, self._at)
        except JSONDecodeError as error:
            self._at = error.pos
            self._fail(error.msg)
        if any("\ud800" <= char <= "\udfff" for char in text):
            self._fail("text with half a surrogate pair")
        return text

    def _atom(self, start: int) -> Scalar:
        found = _ATOM.match(self._text, start)
        if found is None:
            self._fail("expected a value")
        self._at = found.end()
        word, mark = found[0], self._mark(start)
        if word in _WORDS:
            return Scalar(_WORDS[word], word, mark)
        number = int(word) if word.lstrip("-").isdigit() else float(word)
        if not isfinite(number):
            self._fail("a number beyond every limit")
        return Scalar(number, word, mark)

    def _skip_space(self) -> None:
        found = _SPACE.match(self._text, self._at)
        self._at = found.end() if found else self._at

    def _fail(self, message: str) -> NoReturn:
        line, column = self._place(self._at)
        raise Reject("E100", f"not JSON: {message}", Mark(line, column, line, column + 1))

    def _mark(self, start: int) -> Mark:
        return Mark(*self._place(start), *self._place(self._at))

    def _place(self, at: int) -> tuple[int, int]:
        line = bisect_right(self._starts, at)
        return line, at - self._starts[line - 1] + 1
