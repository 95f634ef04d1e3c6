"""Reads the options of one mapping against their declared fields: nothing unknown, nothing missing, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pipeline.config.nodes import Entry, Mark
from pipeline.config.problems import Located
from pipeline.config.values import Wrong
from pipeline.core.names import join_names, suggestion
from pipeline.core.words import ABSENT, Field


def read_fields(
    entries: Iterable[Entry],
    fields: Mapping[str, Field],
    owner: str,
    at: Mark,
    read: Callable[[Field, Entry, str], object],
) -> dict[str, object]:
    """Return the value of each option given, and the declared defaults of the others.

    `owner` names the mapping in messages (`stage 'draft'`), `at` is its place. Raises `Wrong` with every problem.
    """
    values = {name: field.default for name, field in fields.items() if field.default is not ABSENT}
    problems: list[Located] = []
    entries = tuple(entries)
    given = {entry.key for entry in entries}
    lacking = any(field.required and name not in given for name, field in fields.items())
    likely = [name for name in fields if name not in given] if lacking else None  # one of them was meant
    sound = True  # an option may be broken without a problem of its own, when that has been said elsewhere
    for entry in entries:
        field = fields.get(entry.key)
        if field is None:
            problems.append(unknown_key(entry, fields, owner, likely))
        elif field.secret:
            problems.append(literal_secret(entry, owner))
        else:
            try:
                values[entry.key] = read(field, entry, f"{entry.key!r} of {owner}")
            except Wrong as error:
                sound = False
                problems += error.problems
    for name, field in fields.items():
        if field.required and name not in given:
            problems.append(Located("E104", f"{owner} needs {name!r}", at, field.help or None))
    if problems or not sound:
        raise Wrong(*problems)
    return values


def unknown_key(entry: Entry, known: Iterable[str], owner: str, likely: Iterable[str] | None = None) -> Located:
    """The problem of a key that nobody would read. What was meant is one of `likely`, if that is said."""
    if entry.key == "api_key":
        return literal_secret(entry, owner)
    known = sorted(known)
    hint = suggestion(entry.key, known if likely is None else likely) or f"known here: {join_names(known)}"
    return Located("E102", f"unknown key {entry.key[:60]!r} in {owner}", entry.mark, hint)


def literal_secret(entry: Entry, owner: str) -> Located:
    """The problem of a key in a file."""
    message = f"{entry.key!r} of {owner} would put a key into a file that is shared"
    return Located("E303", message, entry.mark, "use api_key_env with the name of an environment variable")
