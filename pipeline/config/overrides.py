"""Applies `--set a.b=c` to a document before it is checked, so that a flag obeys the rules of the file.

`models.NAME.option`, `stages.NAME.option` (wherever the stage stands), `pipeline.option` and `vars.name`; further keys
step into mappings. `models.NAME=provider/model` stands for a whole model, so that one with options that another
provider does not take can be exchanged. What a flag sets is marked with the flag itself, and so are the problems that
it makes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from pipeline.config.document import flag_scalar
from pipeline.config.nodes import Entry, Listing, Mark, Node, Scalar, Table
from pipeline.config.problems import Located
from pipeline.core.names import join_names, suggestion

_SECTIONS = ("models", "pipeline", "stages", "vars")


class _Refused(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def apply_overrides(root: Table, overrides: Iterable[str], kinds: Collection[str]) -> tuple[Table, list[Located]]:
    """Return the document with each override applied, in their order, and what is wrong with them."""
    problems: list[Located] = []
    for override in overrides:
        mark = Mark(origin=f"--set {override}")
        try:
            root = _applied(root, override, mark, kinds)
        except _Refused as error:
            problems.append(Located("E108", error.message, mark, error.hint))
    return root, problems


def _applied(root: Table, override: str, mark: Mark, kinds: Collection[str]) -> Table:
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise _Refused("this is not of the form a.b=c", "for example stages.draft.concurrency=8")
    section = keys[0]
    if section not in _SECTIONS:
        raise _Refused(f"there is no section {section!r} to set", _nearest(section, _SECTIONS))
    if len(keys) < (3 if section == "stages" else 2):
        raise _Refused(f"say what to set in {path!r}", f"for example {path}.option={text or 'value'}")
    new = Entry(keys[-1], mark, flag_scalar(text, mark))
    if section == "stages":
        stage = _stage(root, keys[1], kinds)
        return _replaced(root, stage, _with(stage, keys[2:-1], new, f"stages.{keys[1]}"))
    if section == "models" and len(keys) == 2:
        new = Entry(keys[1], mark, Table((Entry("use", mark, new.value),), mark))
    elif section == "models" and root.get(section) is None:
        return _with(root, keys[:-1], new, "")  # which says that there is no such model
    if root.get(section) is None:
        root = root.with_entry(Entry(section, mark, Table((), mark)))
    return _with(root, keys[:-1], new, "")


def _with(table: Table, keys: Sequence[str], new: Entry, above: str) -> Table:
    """`table` with `new` set in the table that `keys` lead to."""
    if not keys:
        return table.with_entry(new)
    entry = table.get(keys[0])
    path = f"{above}.{keys[0]}" if above else keys[0]
    if entry is None and above.startswith("models."):  # an option that is a mapping and was not given, such as price
        entry = Entry(keys[0], new.mark, Table((), new.mark))
    if entry is None:
        raise _Refused(f"there is no {path!r} to set", _nearest(keys[0], table.keys()))
    if not isinstance(entry.value, Table):
        raise _Refused(f"{path!r} is not a mapping, so nothing in it can be set")
    return table.with_entry(replace(entry, value=_with(entry.value, keys[1:], new, path)))


def _stage(root: Table, name: str, kinds: Collection[str]) -> Table:
    section = root.get("stages")
    named = dict(_stages(section.value, kinds)) if section else {}
    if name not in named:
        raise _Refused(f"there is no stage {name!r}", _nearest(name, named))
    return named[name]


def _stages(node: Node, kinds: Collection[str]) -> Iterator[tuple[str, Table]]:
    """Every stage below `node`, however deep, with its name."""
    if isinstance(node, Listing):
        for item in node.items:
            yield from _stages(item, kinds)
    elif isinstance(node, Table):
        head = node.entries[0] if node.entries else None
        if head is not None and head.key in kinds and isinstance(head.value, Scalar):
            yield head.value.text, node
        for entry in node.entries:
            yield from _stages(entry.value, kinds)


def _replaced(node: Table, old: Table, new: Table) -> Table:
    """`node` with the very table `old` replaced by `new`."""

    def walk(node: Node) -> Node:
        if node is old:
            return new
        if isinstance(node, Listing):
            return replace(node, items=tuple(walk(item) for item in node.items))
        if isinstance(node, Table):
            return replace(node, entries=tuple(replace(e, value=walk(e.value)) for e in node.entries))
        return node

    return replace(node, entries=tuple(replace(e, value=walk(e.value)) for e in node.entries))


def _nearest(word: str, known: Collection[str]) -> str | None:
    return suggestion(word, known) or (f"known here: {join_names(known)}" if known else None)
