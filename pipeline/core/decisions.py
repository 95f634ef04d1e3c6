"""A function or an expression of the user's: how it is read, and what is wrong with it.

What it decides is the stage's business: a key, an end, a split, the value that goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pipeline.core.arity import accepts, arity
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.templates import BadTemplate, Expression, Template
from pipeline.core.threads import is_blocking

D = TypeVar("D")

PAYLOAD = "the payload"


@dataclass(frozen=True, slots=True)
class Misread:
    """Text that is no expression. It stands where the expression would, so that it is told with all else that is wrong
    with the stage; a pipeline that has one is refused, so it is never called."""

    source: str
    message: str
    hint: str | None = None

    def __call__(self, *args: object) -> object:
        raise TypeError(self.message)


def read_decision(decision: D | str) -> D | Expression | Misread:
    """Read text as an expression; anything else is itself."""
    if not isinstance(decision, str):
        return decision
    try:
        return Expression(decision)
    except BadTemplate as error:
        return Misread(decision, f"{error.message}; got {decision!r:.60}", error.hint or _in_braces(decision))


def _in_braces(text: str) -> str | None:
    """What was meant, if only the braces were forgotten."""
    try:
        return f"write {Expression('{{ ' + text + ' }}').source!r}" if len(text) <= 60 else None
    except BadTemplate:
        return None


def read_template(stage: str, option: str, text: str | Template) -> Template:
    """Read text as a template. Raises `DefinitionError`."""
    if not isinstance(text, str):
        return text
    try:
        return Template(text)
    except BadTemplate as error:
        raise DefinitionError(Problem(stage, option, f"{error.message}; got {text!r:.60}", error.hint)) from error


def decision_problems(
    stage: str,
    option: str | None,
    decision: object,
    *,
    given: str = PAYLOAD,
    count: int = 1,
    visit: bool = False,
    at_once: bool = False,
) -> Iterator[Problem]:
    """Say if `decision` is neither an expression nor a function that can be called with `count` arguments, which are
    what `given` says; see `function_problems`."""
    if isinstance(decision, Expression):
        return
    if isinstance(decision, Misread):
        yield Problem(stage, option, decision.message, decision.hint)
    elif not callable(decision):
        must = "must be" if option else "needs"
        yield Problem(stage, option, f"{must} a function or an expression, got {decision!r:.60}")
    else:
        yield from function_problems(stage, option, decision, given=given, count=count, visit=visit, at_once=at_once)


def function_problems(
    stage: str | None,
    option: str | None,
    function: Callable[..., object],
    *,
    given: str = PAYLOAD,
    count: int = 1,
    visit: bool = False,
    at_once: bool = False,
) -> Iterator[Problem]:
    """Say if `function` cannot be called with `count` arguments, as far as its signature tells. `visit`: it is given
    the visit as one more if it takes that many; `at_once`: it cannot be awaited."""
    found = arity(function)
    called = count + 1 if visit and accepts(function, count + 1) else count
    if found is not None and not found.fits(called):
        subject = "is called with" if option else "its function is called with"
        more = ", or with that and the visit" if visit else ""
        hint = "it is not given the visit" if given == PAYLOAD and not visit and found.fits(2) else None
        yield Problem(stage, option, f"{subject} {given}{more}, and this one takes {found}", hint)
    if at_once and not is_blocking(function):
        yield Problem(stage, option, "is called at once, and this one is async", "make it a plain function")


def whole(value: object, otherwise: int = 1) -> int:
    """`value` if it is a whole number of at least 1, for sums over a definition that has not been checked yet."""
    return value if type(value) is int and value >= 1 else otherwise
