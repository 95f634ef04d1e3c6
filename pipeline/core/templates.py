"""A template is frozen text that becomes a prompt, or a value, when it meets the names of an item.

`Template("Translate: {{ prompt }}").render({"prompt": "hi"})` gives text; `Expression("{{ plan.questions }}")` gives
the list itself. Both are compiled when they are made, so that a mistake in one is found before any call, and compare by
their source alone. Data that is put in is never compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from pipeline.core.plain import plain

if TYPE_CHECKING:
    from pipeline.core.sandbox import Program

__all__ = ["BadTemplate", "Expression", "Template"]


class BadTemplate(ValueError):
    """Text that is not a template. `line` counts from 1 within the text."""

    def __init__(self, message: str, line: int = 1, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.hint = hint


def _run(program: Program, names: Mapping[str, object]) -> object:
    """Run `program` with the names that it uses, as plain data; the others are only told in error messages."""
    return program.run({name: plain(names[name]) for name in program.names if name in names}, names)


@dataclass(frozen=True, slots=True)
class Template:
    """Text with `{{ expressions }}` in Jinja's syntax, sandboxed, undefined names being errors.

    Raises `BadTemplate` when the text is no template. Data reads as JSON in the text, and a
    final newline is kept.
    """

    source: str
    _program: Program | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        program = None
        if "{{" in self.source or "{%" in self.source or "{#" in self.source:
            from pipeline.core.sandbox import compile_text

            program = compile_text(self.source)
        object.__setattr__(self, "_program", program)

    @property
    def names(self) -> frozenset[str]:
        """The names that must be given."""
        return self._program.names if self._program else frozenset()

    @property
    def paths(self) -> frozenset[tuple[str, ...]]:
        """Every constant chain at the head of such a name: `plan.questions[0]` is `('plan', 'questions')`."""
        return self._program.paths if self._program else frozenset()

    def render(self, names: Mapping[str, object]) -> str:
        """Return the text. Raises `ItemError` of type "template" when a name is missing or a filter fails."""
        if self._program is None:
            return self.source
        return cast("str", _run(self._program, names))

    def __reduce__(self) -> tuple[type[Template], tuple[str]]:
        return type(self), (self.source,)


@dataclass(frozen=True, slots=True)
class Expression:
    """Exactly one `{{ expression }}`, evaluated to its own value, which is never text parsed back into data.

    Raises `BadTemplate` when the text is anything else.
    """

    source: str
    _program: Program = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from pipeline.core.sandbox import compile_expression

        object.__setattr__(self, "_program", compile_expression(self.source))

    @property
    def names(self) -> frozenset[str]:
        """The names that must be given."""
        return self._program.names

    @property
    def paths(self) -> frozenset[tuple[str, ...]]:
        """Every constant chain at the head of such a name: `plan.questions[0]` is `('plan', 'questions')`."""
        return self._program.paths

    def evaluate(self, names: Mapping[str, object]) -> object:
        """Return the value as plain data. Raises `ItemError` of type "template" as `Template.render` does."""
        return _run(self._program, names)

    def __reduce__(self) -> tuple[type[Expression], tuple[str]]:
        return type(self), (self.source,)
