"""Flags: each is also an environment variable, and quantities are written as in a pipeline file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import TypeVar

import typer

from pipeline.cli.exits import UsageError
from pipeline.config.units import WrongForm, budget, count, count_or_share, duration
from pipeline.core.budget import Budget

T = TypeVar("T")


def flag(
    *names: str,
    help: str,
    metavar: str | None = None,
    parser: Callable[[str], object] | None = None,
) -> object:
    """A flag with one value. It can also be given as `PENSTOCK_<FLAG>`; the flag itself comes first."""
    variable = variable_of(names[0])
    return typer.Option(*names, help=help, metavar=metavar, parser=parser, envvar=variable, show_default=False)


def once(*names: str, help: str, metavar: str) -> object:
    """A flag that is refused when it comes twice, see `only`."""
    help = f"{help}  [env var: {variable_of(names[0])}]"
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


def choice(name: str, *, words: tuple[str, ...], help: str) -> object:
    """A flag whose value is one of `words`."""
    return flag(name, help=help, metavar=f"[{'|'.join(words)}]", parser=one_of(*words))


def repeated(*names: str, help: str, metavar: str) -> object:
    """A flag that may come several times; its variable holds one value a line, see `several`."""
    help = f"{help}  [repeatable; env var: {variable_of(names[0])}, one a line]"
    return typer.Option(*names, help=help, metavar=metavar, show_default=False)


def only(values: Sequence[str] | None, name: str, default: str) -> str:
    """The value of a flag that may come once, or else that of its variable. Raises `UsageError`."""
    if values and len(values) > 1:
        raise UsageError(f"{name} is given {len(values)} times; it takes one value")
    return values[0] if values else os.environ.get(variable_of(name)) or default


def variable_of(name: str) -> str:
    """The environment variable of the flag `name`."""
    return "PENSTOCK_" + name.lstrip("-").replace("-", "_").upper()


def several(values: Sequence[str] | None, name: str) -> tuple[str, ...]:
    """The values of the repeatable flag `name`, or else the lines of its variable."""
    if values:
        return tuple(values)
    return tuple(line for line in os.environ.get(variable_of(name), "").splitlines() if line)


def pairs(values: Sequence[str], name: str) -> Mapping[str, object]:
    """Read `k=v` texts. Raises `UsageError`."""
    found: dict[str, object] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"{name} {text!r} is not of the form name=value")
        found[key] = value
    return found


def a_count(text: str) -> int:
    """`16`, `25.6k`."""
    return _read(count, text)


def a_positive_count(text: str) -> int:
    """A count of at least one."""
    number = _read(count, text)
    if number < 1:
        raise typer.BadParameter("must be at least 1")
    return number


def a_count_or_share(text: str) -> int | float:
    """`10` or `5%`."""
    return _read(count_or_share, text)


def a_duration(text: str) -> float:
    """`250ms`, `30s`; infinity for `none`, because None is a flag that was not given."""
    seconds = _read(duration, text)
    return inf if seconds is None else seconds


def a_positive_duration(text: str) -> float:
    """A duration above nothing."""
    seconds = a_duration(text)
    if not seconds > 0:
        raise typer.BadParameter("must be above 0 seconds")
    return seconds


def an_age(text: str) -> float:
    """A duration, or days: `30d`."""
    days = text.removesuffix("d")
    return a_count(days) * 86_400.0 if days != text and days.isdigit() else a_duration(text)


def a_budget(text: str) -> Budget:
    """`5usd`, `2Mtok`, `10kreq`, or several of them with commas."""
    if not text:
        raise typer.BadParameter("is empty: write 5usd, since a shell takes $5 for a variable")
    return _read(budget, text)


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes one of `words`."""

    def read(text: str) -> str:
        if text in words:
            return text
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(words)}")

    return read


def _read(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except WrongForm as error:
        raise typer.BadParameter(str(error)) from None
