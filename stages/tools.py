"""A Python function as a tool: what a model is told of it, and how it is called with what the model gives.

    def population(city: str) -> int:
        "The number of people who live in a city."

    agent("lead", model="openai/gpt-5.5", tools=[population])

Name, description and arguments are those of the function. What a model gives is checked against them, and what is wrong
with it goes back to the model. A tool is offered by the stage that was given it and by no other; nothing that a model
writes can add one.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, overload

from pipeline.calls.tool import Tool
from pipeline.core.codec import encode
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.threads import is_blocking
from pipeline.core.time_limit import is_duration, within

if TYPE_CHECKING:
    from pipeline.core.visit import Visit
    from stages.tool_arguments import Arguments

ToolFunction: TypeAlias = Callable[..., Any]

#: What becomes of an exception of a tool: the model is told of it, or the item fails.
OnToolError: TypeAlias = Literal["tell", "fail"]

MAX_RESULT: Final = 65_536  #: characters of a result that a model is given, if the tool does not say

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ToolError(ItemError):
    """A tool that was to fail its item has raised; the text says which, and what."""


@dataclass(frozen=True)
class FunctionTool:
    """A function that models may call. `tool` makes it; it can still be called as the function that it is."""

    name: str
    description: str
    function: ToolFunction
    timeout: float | None = None  #: seconds of one call; None: as long as the item has
    on_error: OnToolError = "tell"
    max_result: int = MAX_RESULT  #: characters; of a longer one the model gets the start, and is told so
    arguments: Arguments = field(compare=False, repr=False, kw_only=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def told(self) -> Tool:
        """What a model is told of it."""
        return Tool(self.name, self.description, self.arguments.json_schema)

    async def run(self, given: Mapping[str, object], visit: Visit) -> str:
        """Call the function with the arguments `given`, and the visit if it wants that; return the result as text.

        An async function is awaited, another one runs in a thread of the stage. Raises what the function raises.
        """
        given = {**given, **dict.fromkeys(self.arguments.visit, visit)}
        part = f"tool {self.name!r}"
        if is_blocking(self.function):
            result = await visit.in_thread(lambda: self.function(**given), part=part, timeout=self.timeout)
        else:
            result = await within(self.timeout, visit.stage, self.function(**given), part)
        return self.cut(result if isinstance(result, str) else encode(result).decode())

    def cut(self, text: str) -> str:
        """Of a text that is too long, the start and how much is missing."""
        whole = text[: self.max_result].encode("utf-8", "replace").decode()  # half characters are on no wire
        return whole if len(text) <= self.max_result else f"{whole}\n[cut: {len(whole):,} of {len(text):,} characters]"


@overload
def tool(
    function: ToolFunction,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    on_error: OnToolError = "tell",
    max_result: int = MAX_RESULT,
) -> FunctionTool: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    on_error: OnToolError = "tell",
    max_result: int = MAX_RESULT,
) -> Callable[[ToolFunction], FunctionTool]: ...


def tool(function: ToolFunction | None = None, **options: Any) -> FunctionTool | Callable[[ToolFunction], FunctionTool]:
    """A function as a tool, where its own name and docstring do not do, or with options; also as a decorator.

    Its parameters are annotated with types that pydantic knows; one annotated `Visit` gets the visit, and no model is
    told of it. `timeout` is in seconds. An exception goes to the model as text, or, with `on_error="fail"`, fails the
    item as `ToolError`. Of a result with more than `max_result` characters the model gets the start. Raises
    `DefinitionError` for what no model can be offered.
    """
    return partial(_made, **options) if function is None else _made(function, **options)


def _made(
    function: ToolFunction,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = None,
    on_error: OnToolError = "tell",
    max_result: int = MAX_RESULT,
) -> FunctionTool:
    from stages.tool_arguments import Arguments  # pydantic costs, so who has no tools does not load it

    if not callable(function):
        raise DefinitionError(_wrong(f"{function!r:.60} is not a function", "give functions, or tool(function, …)"))
    own = name or str(getattr(function, "__name__", type(function).__name__))
    if not _NAME.fullmatch(own):
        text = f"{own!r} is not a name that a model can call: letters, digits, _ and -, at most 64"
        raise DefinitionError(_wrong(text, "give one, as tool(function, name='search')"))
    if timeout is not None and not is_duration(timeout):
        raise DefinitionError(_wrong(f"{own!r}: timeout must be a number of seconds above 0, got {timeout!r}"))
    if on_error not in ("tell", "fail"):
        raise DefinitionError(_wrong(f"{own!r}: on_error must be 'tell' or 'fail', got {on_error!r}"))
    if type(max_result) is not int or max_result < 1:
        raise DefinitionError(_wrong(f"{own!r}: max_result must be a whole number of at least 1, got {max_result!r}"))
    said = inspect.getdoc(function) if inspect.isroutine(function) else None
    told = (said or "") if description is None else description
    return FunctionTool(own, told, function, timeout, on_error, max_result, arguments=Arguments(own, function))


def as_tools(given: object, stage: str) -> tuple[FunctionTool, ...]:
    """The tools of a stage, from functions and tools. Raises `DefinitionError` with every problem of them."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise DefinitionError(Problem(stage, "tools", f"is {given!r:.60}", "give a list of functions, as [search]"))
    made: dict[str, FunctionTool] = {}
    problems: list[Problem] = []
    for each in cast("Iterable[Any]", given):
        try:
            one = each if isinstance(each, FunctionTool) else tool(each)
        except DefinitionError as error:
            problems += [Problem(stage, "tools", problem.message, problem.hint) for problem in error.problems]
            continue
        if made.setdefault(one.name, one) is not one:
            problems.append(
                Problem(stage, "tools", f"two are called {one.name!r}", "name one, as tool(function, name='…')")
            )
    if problems:
        raise DefinitionError(*problems)
    return tuple(made.values())


def _wrong(message: str, hint: str | None = None) -> Problem:
    return Problem(None, "tools", message, hint)
