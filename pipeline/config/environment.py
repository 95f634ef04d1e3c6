"""Puts `${VARIABLE}` of the environment into the scalars of a section, in a single pass.

    ${NAME}  ${NAME:-default}  ${NAME:?message}  $${ for a plain ${

What is put in is a scalar and stays one: it is not read again, neither for further variables nor as a list or mapping.
Only settings are given to this; prompts never are, so that a `$` in a prompt stays a `$`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.document import plain_scalar
from pipeline.config.nodes import Listing, Node, Scalar, Table
from pipeline.config.problems import Located

_REFERENCE = re.compile(r"\$(?:\$\{|\{([A-Za-z_][A-Za-z0-9_]*)(?::(-|\?)([^{}]*))?\}|\{)")


def interpolate(node: Node, environment: Mapping[str, str]) -> tuple[Node, list[Located]]:
    """Return `node` with its variables put in, and what is wrong with them."""
    problems: list[Located] = []

    def walk(node: Node) -> Node:
        match node:
            case Scalar():
                return _scalar(node, environment, problems)
            case Listing():
                return replace(node, items=tuple(walk(item) for item in node.items))
            case Table():
                return replace(node, entries=tuple(replace(e, value=walk(e.value)) for e in node.entries))

    return walk(node), problems


def _scalar(node: Scalar, environment: Mapping[str, str], problems: list[Located]) -> Scalar:
    if not isinstance(node.value, str) or "${" not in node.value:
        return node

    def put(found: re.Match[str]) -> str:
        if found[0] == "$${":
            return "${"
        name, operation, rest = found[1], found[2], found[3]
        if name is None:
            message = "'${' does not start a variable here"
            problems.append(
                Located("E109", message, node.mark, "write ${NAME}, ${NAME:-default}, or $${ for a plain ${")
            )
            return ""
        value = environment.get(name)
        if value or (value is not None and operation is None):
            return value
        if operation == "-":
            return str(rest)
        message = f"the environment variable {name} is not set" + (f": {rest}" if rest else "")
        problems.append(Located("E109", message, node.mark, f"set it, or write ${{{name}:-default}}"))
        return ""

    text = _REFERENCE.sub(put, node.value)
    return replace(node, value=plain_scalar(text), text=text, loose=True, from_environment=True)
