"""What a call of a function has to bring, as far as its signature tells."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

import pytest

from pipeline.core.arity import arity


class Called:
    def __call__(self, value: object) -> object: ...


@functools.wraps(operator.add)
def wrapping(*args: object) -> object: ...


@pytest.mark.parametrize(
    ("function", "counts", "told"),
    [
        (lambda: 1, (0,), "no argument"),
        (lambda a: 1, (1,), "1 argument"),
        (lambda a, b: 1, (2,), "2 arguments"),
        (lambda a, b=1: 1, (1, 2), "at least 1 argument"),
        (lambda a=1: 1, (0, 1), "at most 1 argument"),
        (lambda *a: 1, (0, 1, 2, 3), "any number of arguments"),
        (lambda a, *, k=1: 1, (1,), "1 argument"),
        (lambda a, *, k: 1, (), "the keyword 'k'"),
        (str.upper, (1,), "1 argument"),
        (list, (0, 1), "at most 1 argument"),
        (Called(), (1,), "1 argument"),
        (functools.partial(operator.add, 1), (1,), "1 argument"),
        (wrapping, (0, 1, 2, 3), "any number of arguments"),
    ],
)
def test_a_signature_says_how_many_arguments_a_call_brings(
    function: Callable[..., object], counts: tuple[int, ...], told: str
) -> None:
    found = arity(function)
    assert found is not None
    assert tuple(count for count in range(4) if found.fits(count)) == counts
    assert str(found) == told


@pytest.mark.parametrize("function", [str, max, operator.itemgetter("a"), 5])
def test_what_has_no_signature_says_nothing(function: Callable[..., object]) -> None:
    assert arity(function) is None
