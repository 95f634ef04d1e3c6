"""How much one operation of a template may build: every operator, padding and number has a limit.

The numbers in a template can come from an input record, so `'x' * input.n` has to fail one item instead of taking the
memory of the run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, cast

#: The most characters that a template may render, and items that an expression may build.
LIMIT = 16 * 1024 * 1024
#: The widest padding that an operator, a method or a filter may ask for.
WIDEST = 100_000
_BITS = 4096  #: the largest result of `**`: text of a larger number is refused by Python itself
PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_WIDTH = re.compile(r"\d{6,}")


class TooMuch(ValueError):
    """An operation asks for more than a template may have; says what and how much."""


def add(left: Any, right: Any) -> Any:
    check_size(_length(left) + _length(right))
    return left + right


def multiply(left: Any, right: Any) -> Any:
    for value, times in ((left, right), (right, left)):
        if type(times) is int:
            check_size(_length(value) * times)
    if type(left) is int and type(right) is int:
        _check_bits(left.bit_length() + right.bit_length())
    return left * right


def power(left: Any, right: Any) -> Any:
    if type(left) is int and type(right) is int and right > 0 and abs(left) > 1:
        _check_bits(left.bit_length() * right)
    return left**right


def modulo(left: Any, right: Any) -> Any:
    return formatted(left, right) if isinstance(left, str) else left % right


def formatted(value: str, *args: Any) -> str:
    if "*" in value:
        raise TooMuch("a width given as * is not allowed in a template")
    check_widths(value)
    return value % (args[0] if len(args) == 1 else args)


def narrow(function: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `function`, refusing numbers that only serve to build something enormous."""

    @wraps(function)  # keeps the marks by which jinja2 passes a filter its environment
    def narrowed(*args: Any, **kwargs: Any) -> Any:
        check_numbers(args[1:], kwargs)
        return function(*args, **kwargs)

    return narrowed


def _length(value: object) -> int:
    """Characters or items of `value`; 0 for what has none."""
    return len(cast("str", value)) if isinstance(value, str | bytes | list | tuple) else 0


def check_numbers(args: Iterable[object], kwargs: Mapping[str, object]) -> None:
    for number in (*args, *kwargs.values()):
        if isinstance(number, int) and number > WIDEST:
            raise TooMuch(f"a width of {number} is not allowed in a template; the most is {WIDEST}")


def check_widths(text: str) -> None:
    if _WIDTH.search(text):
        raise TooMuch(f"a width in {text[:40]!r} is not allowed in a template; the most is {WIDEST}")


def check_size(size: int) -> None:
    if size > LIMIT:
        raise TooMuch(f"a value of {size} characters or items is not allowed in a template; the most is {LIMIT}")


def _check_bits(bits: int) -> None:
    if bits > _BITS:
        raise TooMuch(f"a number of {bits} bits is not allowed in a template; the most is {_BITS}")
