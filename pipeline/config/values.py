"""Reads one node as the Python value of its kind, or says what is wrong with it.

Only kinds that need nothing but the node; models, bodies and imports are read where those are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from pipeline.config.nodes import Listing, Mark, Node, Scalar, Table, data, describe
from pipeline.config.problems import Located
from pipeline.config.units import WrongForm, budget, count, count_or_share, duration, money, rate, share
from pipeline.core.joins import Join, first, quorum
from pipeline.core.names import join_names, suggestion
from pipeline.core.templates import BadTemplate, Expression, Template
from pipeline.core.words import Field, FieldKind

T = TypeVar("T")

_JOINS = 'all, any, majority, {first: 2}, {quorum: 2}, {majority: "{{ answer.x }}"} or {call: "module:attribute"}'


class Wrong(Exception):
    """A value cannot be read. `problems` are all that was found in it."""

    def __init__(self, *problems: Located) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


def read_value(field: Field, node: Node, what: str) -> object:
    """Return the value of `node`. `what` names it in messages: `'timeout' of stage 'dig'`. Raises `Wrong`."""
    return READERS[field.kind](field, node, what)


def wrong(node: Node, what: str, expected: str) -> Wrong:
    """The problem of a value that has not the form that is expected."""
    return Wrong(Located("E101", f"{what} must be {expected}, not {describe(node)}", node.mark))


def _text(_: Field, node: Node, what: str) -> str:
    if isinstance(node, Scalar):
        if isinstance(node.value, str):
            return node.value
        if node.loose:
            return node.text
        if node.value is not None:
            problem = Located("E101", f"{what} must be text, not {describe(node)}", node.mark, "put it in quotes")
            raise Wrong(problem)
    raise wrong(node, what, "text")


def _texts(field: Field, node: Node, what: str) -> tuple[str, ...]:
    if isinstance(node, Listing):
        return tuple(_text(field, item, f"each of {what}") for item in node.items)
    return (_text(field, node, what),)


def _template(field: Field, node: Node, what: str) -> Template:
    return _compiled(Template, "E201", field, node, what)


def _expression(field: Field, node: Node, what: str) -> Expression:
    return _compiled(Expression, "E202", field, node, what)


def _compiled(make: Callable[[str], T], code: str, field: Field, node: Node, what: str) -> T:
    text = _text(field, node, what)
    try:
        return make(text)
    except BadTemplate as error:
        mark = node.mark
        if isinstance(node, Scalar) and node.literal and mark.line and mark.origin is None:
            line = mark.line + error.line
            mark = Mark(line, 1, line + 1, 1)
        raise Wrong(Located(code, f"{what}: {error.message}", mark, error.hint)) from None


def _in_units(parse: Callable[[str], object], form: str) -> Callable[[Field, Node, str], object]:
    """A reader of quantities; numbers and text are taken as they were written."""

    def read(_: Field, node: Node, what: str) -> object:
        if not isinstance(node, Scalar) or node.value is None or isinstance(node.value, bool):
            raise wrong(node, what, form)
        try:
            return parse(node.text)
        except WrongForm as error:
            shown = "the value from the environment" if node.from_environment else error.shown
            raise Wrong(Located("E101", f"{what}: {shown} {error.verdict}", node.mark, error.hint)) from None

    return read


def _number(_: Field, node: Node, what: str) -> int | float:
    if isinstance(node, Scalar) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    raise wrong(node, what, "a number")


def _flag(_: Field, node: Node, what: str) -> bool:
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    raise wrong(node, what, "true or false")


def _choice(field: Field, node: Node, what: str) -> str:
    text = node.text if isinstance(node, Scalar) else None
    if text in field.choices:
        return text
    near = suggestion(text, field.choices) if text is not None else None
    message = f"{what} must be one of {join_names(field.choices)}, not {describe(node)}"
    raise Wrong(Located("E101", message, node.mark, near))


def _schema(_: Field, node: Node, what: str) -> object:
    if isinstance(node, Scalar) and not isinstance(node.value, str):
        raise wrong(node, what, "a type, a list of one type, or a mapping")
    return data(node)


def _join(_: Field, node: Node, what: str) -> Join:
    if isinstance(node, Scalar) and node.text in ("all", "any", "majority"):
        return Join.of(node.text)
    if isinstance(node, Table) and len(node.entries) == 1 and node.entries[0].key in ("first", "quorum"):
        entry = node.entries[0]
        k = READERS["count"](Field("count"), entry.value, f"{entry.key!r} in {what}")
        if isinstance(k, int) and k >= 1:
            return first(k) if entry.key == "first" else quorum(k)
        raise Wrong(Located("E101", f"{entry.key!r} in {what} must be at least 1", entry.value.mark))
    raise wrong(node, what, _JOINS)


def _mapping(_: Field, node: Node, what: str) -> object:
    if isinstance(node, Table):
        return data(node)
    raise wrong(node, what, "a mapping")


def _any(_: Field, node: Node, what: str) -> object:
    del what
    return data(node)


READERS: Final[Mapping[FieldKind, Callable[[Field, Node, str], object]]] = MappingProxyType(
    {
        "text": _text,
        "texts": _texts,
        "template": _template,
        "expression": _expression,
        "duration": _in_units(duration, "a duration like 30s"),
        "count": _in_units(count, "a count like 16 or 25.6k"),
        "number": _number,
        "share": _in_units(share, "a share like 3%"),
        "count_or_share": _in_units(count_or_share, "a count or a share like 5%"),
        "rate": _in_units(rate, "a rate like 500/min"),
        "money": _in_units(money, "an amount like 5usd"),
        "budget": _in_units(budget, "a budget like 5usd, 2Mtok or 10kreq"),
        "flag": _flag,
        "choice": _choice,
        "schema": _schema,
        "join": _join,
        "mapping": _mapping,
        "any": _any,
    }
)
