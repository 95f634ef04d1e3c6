"""How many arguments a function of the user's takes, where that can be known."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple


class Arity(NamedTuple):
    """What a call has to bring."""

    fewest: int  #: positional arguments
    most: int | None  #: None: any number
    keyword: str | None  #: one that a call by position cannot give

    def __str__(self) -> str:
        if self.keyword is not None:
            return f"the keyword {self.keyword!r}"
        if self.most == self.fewest:
            return _arguments(self.fewest)
        if self.fewest:
            return f"at least {_arguments(self.fewest)}"
        return "any number of arguments" if self.most is None else f"at most {_arguments(self.most)}"

    def fits(self, count: int) -> bool:
        """Whether `count` positional arguments are a call."""
        return self.keyword is None and self.fewest <= count and (self.most is None or count <= self.most)


def arity(function: Callable[..., object]) -> Arity | None:
    """What a call of `function` itself has to bring, whatever it wraps; None where nothing says so, as of some
    builtins."""
    try:
        parameters = list(inspect.signature(function, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return None
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    endless = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    needed = sum(p.default is p.empty for p in places)
    return Arity(needed, None if endless else len(places), keywords[0] if keywords else None)


def accepts(function: Callable[..., object], count: int) -> bool:
    """Say whether `function` takes `count` positional arguments of its own accord."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return False
    required = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    return len(required) >= count


def _arguments(count: int) -> str:
    return "no argument" if count == 0 else "1 argument" if count == 1 else f"{count} arguments"
