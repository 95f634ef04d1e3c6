"""Compiles template text into a function of names: the only door of jinja2, imported with the first template.

The sandbox keeps a template from reaching Python objects and from changing data, and `template_limits` bounds what it
may build. The time of nested loops is not bounded: templates come from the pipeline's author, never from data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.environment import Environment
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import missing

from pipeline.core.errors import ItemError
from pipeline.core.names import join_names, suggestion
from pipeline.core.plain import plain
from pipeline.core.template_limits import (
    LIMIT,
    PADDING,
    TooMuch,
    add,
    check_numbers,
    check_widths,
    formatted,
    modulo,
    multiply,
    narrow,
    power,
)
from pipeline.core.templates import BadTemplate


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """Compiled text: the names it needs, the constant chains at their heads, and the function that runs it.

    `run` takes the values of those names, and all the names that there are, for its error messages.
    """

    names: frozenset[str]
    paths: frozenset[tuple[str, ...]]
    run: Callable[[dict[str, object], Iterable[str]], object]


def compile_text(source: str) -> Program:
    """Compile text with expressions in it; running it gives text. Raises `BadTemplate`."""
    env = _environment()
    tree = _parse(env, source)
    template = _guarded(lambda: env.from_string(tree))

    def run(values: dict[str, object]) -> str:
        pieces: list[str] = []
        size = 0
        for piece in template.root_render_func(template.new_context(values)):
            size += len(piece)
            if size > LIMIT:
                raise TooMuch(f"the text is longer than {LIMIT} characters")
            pieces.append(piece)
        return "".join(pieces)

    return Program(_names(env, tree), _paths(env, tree), _as_item_errors(run))


def compile_expression(source: str) -> Program:
    """Compile text that is exactly one `{{ … }}`; running it gives the value itself. Raises `BadTemplate`."""
    env = _environment()
    text = source.strip()
    tree = _parse(env, text)
    body = tree.body
    one = len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1
    if not one or not text.startswith("{{") or not text.endswith("}}"):
        raise BadTemplate("this must be exactly one expression, written {{ … }}, with nothing around it")
    inner = re.sub(r"^[+-]|[+-]$", "", text[2:-2])
    call = _guarded(lambda: env.compile_expression(inner, undefined_to_none=False))
    return Program(_names(env, tree), _paths(env, tree), _as_item_errors(lambda values: _data(call(values))))


def _as_item_errors(
    run: Callable[[dict[str, object]], object],
) -> Callable[[dict[str, object], Iterable[str]], object]:
    """Turn whatever goes wrong in `run` into the failure of one item."""

    def safely(values: dict[str, object], names: Iterable[str]) -> object:
        try:
            return run(values)
        except _MissingName as error:
            name = str(error)
            message = f"{name!r} is not defined; available here: {join_names(names)}"
            near = suggestion(name, names)
            if near is None and "round" in names:
                near = "what the body of a loop puts out is there from round 2 on: {% if round > 1 %} … {% endif %}"
            raise ItemError(message + (f" ({near})" if near else ""), type="template") from error
        except RecursionError as error:
            raise ItemError("the template or its data is nested too deeply", type="template") from error
        except Exception as error:
            raise ItemError(str(error) or type(error).__name__, type="template") from error

    return safely


# --- reading the tree -------------------------------------------------------------------------------------------------


def _parse(env: Environment, source: str) -> nodes.Template:
    tree = _guarded(lambda: env.parse(source))
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        raise BadTemplate("a template stands alone: it cannot include, import or extend another one", node.lineno)
    return tree


def _guarded(compile_it: Callable[[], Any]) -> Any:
    """Run one step of the compilation; whatever jinja2 or Python has against the text becomes `BadTemplate`."""
    try:
        return compile_it()
    except TemplateSyntaxError as error:
        message = (error.message or "cannot be read").rstrip(".")
        raise BadTemplate(message, error.lineno, _nearest_filter(message)) from None
    except RecursionError:
        raise BadTemplate("nested too deeply") from None
    except Exception as error:
        raise BadTemplate(f"cannot be compiled: {error}") from None


def _nearest_filter(message: str) -> str | None:
    found = re.fullmatch(r"No (filter|test) named '(.*)'", message)
    if found is None:
        return None
    env = _environment()
    known: Iterable[str] = cast("dict[str, object]", env.filters if found[1] == "filter" else env.tests)
    return suggestion(found[2], known)


def _names(env: Environment, tree: nodes.Template) -> frozenset[str]:
    found = _guarded(lambda: meta.find_undeclared_variables(tree))
    return frozenset(found) - env.globals.keys()


def _paths(env: Environment, tree: nodes.Template) -> frozenset[tuple[str, ...]]:
    """The constant chains `a.b['c']` that start at a name from outside.

    A method that is called is no field, a name that the template also binds itself tells nothing, and what the template
    asks for with `default` or `is defined` may be missing.
    """
    bound = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    heads = _names(env, tree) - bound
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    chains: set[tuple[str, ...]] = {(head,) for head in heads}
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        chain = None if id(node) in called else _chain(node)
        if chain is not None and chain[0] in heads:
            chains.add(chain)
    asked = [node.node for node in tree.find_all((nodes.Filter, nodes.Test)) if _asks_whether_defined(node)]
    optional = {_chain(node) for node in asked if node is not None}
    return frozenset(
        chain for chain in chains if not any(chain[:depth] in optional for depth in range(2, len(chain) + 1))
    )


def _asks_whether_defined(node: nodes.Filter | nodes.Test) -> bool:
    return node.name in ("default", "d") if isinstance(node, nodes.Filter) else node.name in ("defined", "undefined")


def _chain(node: nodes.Node) -> tuple[str, ...] | None:
    match node:
        case nodes.Name():
            return (node.name,)
        case nodes.Getattr():
            key = node.attr
        case nodes.Getitem(arg=nodes.Const(value=str() as key)):
            pass
        case _:
            return None
    head = _chain(node.node)
    return None if head is None else (*head, key)


# --- the sandbox ------------------------------------------------------------------------------------------------------


class _MissingName(UndefinedError):
    """A name that nobody gave; its text is the name alone."""


class _Strict(StrictUndefined):
    __slots__ = ()

    def __init__(
        self, hint: str | None = None, obj: Any = missing, name: str | None = None, exc: Any = UndefinedError
    ) -> None:
        nobody_gave_it = obj is missing and hint is None and exc is UndefinedError
        super().__init__(hint, obj, name, _MissingName if nobody_gave_it else exc)

    @property
    def _undefined_message(self) -> str:
        name, of = self._undefined_name, self._undefined_obj
        if self._undefined_hint:
            return self._undefined_hint
        if of is missing:
            return str(name)
        if isinstance(of, dict):
            keys = [str(key) for key in cast("dict[object, object]", of)]
            near = suggestion(str(name), keys)
            return f"no field {name!r} in an object with: {join_names(keys)}" + (f" ({near})" if near else "")
        kind = "text" if isinstance(of, str) else f"a {type(of).__name__}"
        return f"{kind} has no {'field' if isinstance(name, str) else 'element'} {name!r}"


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Any, format_spec: str) -> Any:
        check_widths(format_spec)
        return super().format_field(value, format_spec)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def getattr(self, obj: Any, attribute: str) -> Any:
        # Data before methods: `plan.items` is the field `items` of a mapping that has one.
        if type(obj) is dict and attribute in obj:
            return cast("dict[str, object]", obj)[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        formatter, template = _Formatter(self), str(value.__self__)

        def format_map(fields: Mapping[str, Any]) -> str:
            return formatter.vformat(template, (), fields)

        def format(*args: Any, **fields: Any) -> str:
            return formatter.vformat(template, args, fields)

        return format_map if value.__name__ == "format_map" else format

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(__obj, "__name__", "") in PADDING:
            check_numbers(args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)


def _environment() -> _Sandbox:
    env = _Sandbox(undefined=_Strict, keep_trailing_newline=True, finalize=_shown)
    env.binop_table.update({"+": add, "*": multiply, "**": power, "%": modulo})
    for name in ("center", "indent", "wordwrap", "batch", "slice", "round"):
        env.filters[name] = narrow(env.filters[name])
    env.filters["format"] = formatted
    env.filters["tojson"] = _tojson
    # Chance would make a resumed run differ from the first one.
    del env.filters["random"], env.globals["lipsum"], env.globals["cycler"], env.globals["joiner"]
    return env


def _shown(value: object) -> object:
    """How a value reads in a prompt: data as JSON, because that is what it was and what models read best."""
    if type(value) is str:
        return value
    if value is None or isinstance(value, bool | dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value


def _tojson(value: object, indent: int | None = None) -> str:
    """JSON as a prompt wants it; jinja2's own filter escapes it for HTML."""
    check_numbers((indent,), {})
    return json.dumps(value, ensure_ascii=False, default=str, indent=indent)


def _data(value: Any) -> object:
    """What an expression gives, as plain data; lazy results are read, bounded."""
    if isinstance(value, Undefined):
        str(value)  # raises, saying which
    lazy = isinstance(value, Iterator | range)
    return plain(list(islice(cast("Iterable[object]", value), LIMIT)) if lazy else value)
