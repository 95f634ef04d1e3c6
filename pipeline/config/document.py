"""Reads the text of a pipeline file into marked nodes: the only door of yaml.

YAML is taken as its version 1.2 has it and without what surprises: only `true` and `false` are booleans (`no` is text),
no tags, no anchors or aliases, no key twice. The tree is built from parser events, so an alias is refused before
anything could grow from it, and the limits hold while reading.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import isfinite
from pathlib import PurePath
from typing import cast

import yaml

from pipeline.config.jsontext import read_json
from pipeline.config.nodes import Entry, Listing, Mark, Node, Scalar, Table
from pipeline.config.problems import ConfigError, Located
from pipeline.config.tree import Limits, Reject

MOST_BYTES = 1024 * 1024
_ORDER = "the pipeline comes first, then the input"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The stubs leave the type of the stream, and so of the events, open.
_events = cast("Callable[[str, object], Iterator[yaml.Event]]", yaml.parse)  # pyright: ignore[reportUnknownMemberType]
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def read_document(text: str | bytes, name: str) -> tuple[Node, str]:
    """Return the document and its text, read by the extension of `name`: `.toml`, `.json`, else YAML.

    Raises `ConfigError`. Values of a TOML document have no lines: its parser does not tell them.
    """
    content = ""
    try:
        content = _decoded(text)
        root = _read(content, name)
    except Reject as error:
        problem = error.problem
        if problem.code == "E100" and content and not _is_named_as_pipeline(name):
            problem = replace(problem, hint=_ORDER)
        raise ConfigError(name, content, [problem]) from None
    except RecursionError:
        raise ConfigError(name, content, [Located("E107", "nested too deeply")]) from None
    if not _is_named_as_pipeline(name) and not _is_like_pipeline(root):
        problem = Located("E100", "this is no pipeline file", replace(root.mark, end_line=root.mark.line), _ORDER)
        raise ConfigError(name, content, [problem])
    return root, content


def _read(content: str, name: str) -> Node:
    match PurePath(name).suffix.lower():
        case ".toml":
            return _read_toml(content)
        case ".json":
            return read_json(content)
        case _:
            return _YamlReader().read(content)


def _is_named_as_pipeline(name: str) -> bool:
    return name == "stdin" or PurePath(name).suffix.lower() in (".yaml", ".yml", ".toml", ".json")


def _is_like_pipeline(root: Node) -> bool:
    return isinstance(root, Table) and any(root.get(key) for key in ("version", "models", "stages"))


def _decoded(text: str | bytes) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise Reject("E107", f"the file has {size} bytes; the most is {MOST_BYTES} (1 MiB)")
    if isinstance(text, str):
        bad = next((at for at, char in enumerate(text) if "\ud800" <= char <= "\udfff"), None)
        if bad is not None:
            raise Reject("E100", f"not valid Unicode: half a surrogate pair at character {bad}")
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise Reject(
            "E100", f"not UTF-8: byte {text[error.start]:#04x} in line {line}; save the file as UTF-8"
        ) from None


def plain_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted word means in YAML 1.2. Infinities and not-a-numbers stay text: no option can use them."""
    if text in ("true", "True", "TRUE"):
        return True
    if text in ("false", "False", "FALSE"):
        return False
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if len(text) <= 400 and _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if len(text) <= 400 and _FLOAT.fullmatch(text):
        number = float(text)
        return text if number in (float("inf"), float("-inf")) else number
    return text


class _YamlReader:
    """Builds the tree of one document from the events of one parse."""

    def __init__(self) -> None:
        self._limits = Limits()

    def read(self, text: str) -> Node:
        bad = _FORBIDDEN.search(text)
        if bad is not None:  # libyaml would tell an offset in bytes
            line, column = text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start())
            message = f"the character U+{ord(bad[0]):04X} is not allowed: write it as an escape in double quotes"
            raise Reject("E100", message, Mark(line, column, line, column + 1))
        try:
            events = _events(text, _LOADER)
            root = self._document(events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if mark is not None:
                _refuse_tab("".join(text.split("\n")[mark.line : mark.line + 1]), mark.line + 1, mark.column)
            place = Mark(mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2) if mark else Mark()
            raise Reject("E100", f"not YAML: {error.problem or error.context or 'cannot be read'}", place) from None
        except yaml.YAMLError as error:
            raise Reject("E100", f"not YAML: {' '.join(str(error).split())}") from None
        return root

    def _document(self, events: Iterator[yaml.Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent) and root is not None:
                raise Reject("E106", "a second document: a pipeline file holds one", _mark(event))
            if isinstance(event, yaml.NodeEvent):
                root = self._node(event, events, 1)
        if root is None:
            raise Reject("E100", "the file is empty; a pipeline starts with 'version: 1'")
        return root

    def _node(self, event: yaml.NodeEvent, events: Iterator[yaml.Event], depth: int) -> Node:
        mark = _mark(event)
        self._limits.enter(depth, mark)
        if isinstance(event, yaml.AliasEvent):
            raise Reject("E106", "aliases are not supported: write the value out", mark)
        if event.anchor is not None:
            raise Reject("E106", f"anchors are not supported: leave out '&{event.anchor}'", mark)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Reject("E106", f"tags are not supported: leave out {tag!r}, and put text in quotes", mark)
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, mark)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._listing(events, mark, depth)
        return self._table(events, mark, depth)

    def _listing(self, events: Iterator[yaml.Event], start: Mark, depth: int) -> Listing:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                return Listing(tuple(items), _span(start, event))
            items.append(self._node(cast("yaml.NodeEvent", event), events, depth + 1))
        raise AssertionError("a list that the parser did not end")

    def _table(self, events: Iterator[yaml.Event], start: Mark, depth: int) -> Table:
        entries: dict[str, Entry] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                return Table(tuple(entries.values()), _span(start, event))
            key = self._node(cast("yaml.NodeEvent", event), events, depth + 1)
            if not isinstance(key, Scalar):
                raise Reject("E101", "a key must be text", key.mark)
            if key.text in entries:
                first = entries[key.text].mark.line
                raise Reject("E106", f"the key {key.text[:60]!r} is already used in line {first}", key.mark)
            value = self._node(cast("yaml.NodeEvent", next(events)), events, depth + 1)
            entries[key.text] = Entry(key.text, key.mark, value)
        raise AssertionError("a mapping that the parser did not end")


def _refuse_tab(line: str, number: int, column: int) -> None:
    """Say it plainly when what YAML stumbled over is a tab before the first word of a line."""
    indentation = line[: len(line) - len(line.lstrip(" \t"))]
    if "\t" in indentation and column <= len(indentation):
        at = indentation.index("\t") + 1
        mark = Mark(number, at, number, at + 1)
        raise Reject("E100", "not YAML: tabs are not allowed in YAML indentation: write spaces", mark)


def _scalar(event: yaml.ScalarEvent, mark: Mark) -> Scalar:
    text: str = event.value
    value = plain_scalar(text) if not event.style else text
    return Scalar(value, text, mark, literal=event.style == "|")


def _mark(event: yaml.Event) -> Mark:
    start, end = event.start_mark, event.end_mark
    return Mark(start.line + 1, start.column + 1, end.line + 1, end.column + 1)


def _span(start: Mark, end: yaml.Event) -> Mark:
    return Mark(start.line, start.column, end.end_mark.line + 1, end.end_mark.column + 1)


def _read_toml(text: str) -> Node:
    try:
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError) as error:
        found = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
        mark = Mark(int(found[1]), int(found[2]), int(found[1]), int(found[2]) + 1) if found else Mark()
        raise Reject("E100", f"not TOML: {str(error)[: found.start()] if found else error}", mark) from None
    return _from_data(value, Limits(), 1)


def _from_data(value: object, limits: Limits, depth: int) -> Node:
    mark = Mark()
    limits.enter(depth, mark)
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return Table(tuple(Entry(key, mark, _from_data(inner, limits, depth + 1)) for key, inner in entries), mark)
    if isinstance(value, list):
        return Listing(tuple(_from_data(inner, limits, depth + 1) for inner in cast("list[object]", value)), mark)
    if isinstance(value, bool):
        return Scalar(value, "true" if value else "false", mark)
    if isinstance(value, str | int) or (isinstance(value, float) and isfinite(value)):
        return Scalar(value, str(value), mark)
    if isinstance(value, float):
        raise Reject("E101", f"{value} has no use here: write a finite number")
    raise Reject("E101", f"dates and times have no use here: put {str(value)!r} in quotes")


def flag_scalar(text: str, mark: Mark) -> Scalar:
    """The value of a flag: what an unquoted word means, or the text between quotes."""
    if text[:1] in ("'", '"'):
        try:
            node = _YamlReader().read(text)
        except Reject:
            node = None
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return Scalar(node.value, node.text, mark)
    return Scalar(plain_scalar(text), text, mark, loose=True)


class _Dumper(yaml.SafeDumper):
    """Writes text so that this reader reads the same text: in quotes where it looks like anything else."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # lists stand under their key, as people write them
        super().increase_indent(flow, False)


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(plain_scalar(text), str) else "'"
    if not text.replace("\n", "").isprintable():
        style = '"'  # the only style that can say every character
    elif "\n" in text and all(line == line.rstrip() for line in text.split("\n")):
        style = "|"
    # The stubs leave the value's type open.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _write_text)


def write_yaml(value: object) -> str:
    """The YAML text of plain data; reading it gives the same data."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
