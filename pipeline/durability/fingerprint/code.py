"""What a function or a class of the user's is known by: its name, and a version, or else a hash of its source.

The hash is made of the syntax tree without docstrings and positions, so comments, blank lines and moves to another
place in the file do not change it. What a function calls is not part of it; `helpers` names what that leaves out.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from types import CodeType, FunctionType, ModuleType
from typing import Final, TypeAlias, cast

from pipeline.core.codec import canonical
from pipeline.core.errors import ItemError
from pipeline.core.places import is_ours, is_users

_Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_POSITIONLESS: Final = frozenset({"ctx", "kind", "type_comment", "type_ignores"})  #: and what tells nothing
_UNREADABLE: Final = (OSError, SyntaxError, ValueError, RecursionError, ItemError)


def name_of(thing: object) -> str:
    """The name of a function or class: `module:qualname`; of the engine's and Python's own the last part will do."""
    module, name = _module_of(thing), str(getattr(thing, "__qualname__", type(thing).__qualname__))
    return name if is_ours(module) or module == "builtins" else f"{module}:{name}"


def version_of(thing: object) -> str | int | float | None:
    """What the author says the version of `thing` is, if that is said."""
    for name in ("version", "__version__"):
        try:
            found = getattr(thing, name, None)
        except Exception:  # a property of the user's
            continue
        if isinstance(found, str | int | float) and not isinstance(found, bool):
            return found
    return None


def is_foreign(thing: object) -> bool:
    """Whether `thing` is neither ours nor Python's, so that it may be another one in the next run."""
    module = _module_of(thing)
    return not is_ours(module) and module.partition(".")[0] not in sys.stdlib_module_names


def reached(thing: FunctionType | type) -> dict[str, object]:
    """What a function, or the methods of a class, use of the names of their module, in alphabetical order."""
    if isinstance(thing, type):
        own = [function for function in vars(thing).values() if isinstance(function, FunctionType)]
        found = {name: value for function in own for name, value in reached(function).items()}
        return dict(sorted(found.items()))
    names = sorted({name for code in _codes(thing.__code__) for name in code.co_names})
    return {name: thing.__globals__[name] for name in names if name in thing.__globals__}


def helpers(thing: FunctionType | type) -> tuple[str, ...]:
    """The names under which a function, or the methods of a class, reach code that no hash of theirs covers."""
    code = (FunctionType, ModuleType, type)
    used = reached(thing).items()
    return tuple(name for name, each in used if isinstance(each, code) and each is not thing and is_foreign(each))


class Sources:
    """The sources of functions and classes. What can change: the files that have been read."""

    def __init__(self) -> None:
        self._trees: dict[str, ast.Module | None] = {}

    def hash_of(self, thing: FunctionType | type) -> str | None:
        """The hash of a function's or class's source, with classes of the user's that it is made from; None where the
        source cannot be found."""
        try:
            if isinstance(thing, FunctionType):
                nodes = [self._function(thing)]
            else:
                bases = [base for base in thing.__mro__[1:] if is_users(base.__module__, _file_of(base) or "<")]
                nodes = [self._class(kind) for kind in (thing, *bases)]
            if any(node is None for node in nodes):
                return None
            return blake2b(canonical([_bare(node) for node in nodes]), digest_size=16).hexdigest()
        except _UNREADABLE:
            return None

    def _function(self, function: FunctionType) -> ast.AST | None:
        code = function.__code__
        tree = self._tree(function)
        found = [node for node in ast.walk(tree) if _begins(node, code)] if tree is not None else []
        if code.co_name == "<lambda>" and len(found) > 1:  # in one line
            spans = {position for position in code.co_positions() if None not in position}
            found = [node for node in found if isinstance(node, ast.Lambda) and _span(node.body) in spans]
        return found[0] if len(found) == 1 else None

    def _class(self, kind: type) -> ast.AST | None:
        tree = self._tree(kind)
        found = [] if tree is None else [node for name, node in _defined(tree, "") if name == kind.__qualname__]
        return found[-1] if found else None

    def _tree(self, thing: FunctionType | type) -> ast.Module | None:
        file = _file_of(thing)
        if file is None:
            return None
        if file not in self._trees:
            module = sys.modules.get(_module_of(thing))
            lines = linecache.getlines(file, None if module is None else vars(module))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the user's code, which Python has told when it was imported
                self._trees[file] = ast.parse("".join(lines)) if lines else None
        return self._trees[file]


def _module_of(thing: object) -> str:
    if isinstance(thing, ModuleType):
        return thing.__name__
    return str(getattr(thing, "__module__", None) or type(thing).__module__)


def _file_of(thing: FunctionType | type) -> str | None:
    try:
        return inspect.getsourcefile(thing)
    except (OSError, TypeError):  # no file, or built in, or of a module that nobody can find
        return _file_of_methods(thing) if isinstance(thing, type) else None


def _file_of_methods(kind: type) -> str | None:
    own = [each for each in vars(kind).values() if isinstance(each, FunctionType)]
    written = [each for each in own if each.__globals__.get("__name__") == kind.__module__]
    files = [file for each in written if not (file := each.__code__.co_filename).startswith("<")]
    return files[0] if files else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _begins(node: ast.AST, code: CodeType) -> bool:
    """Whether `node` may be what `code` was compiled from."""
    if isinstance(node, ast.Lambda):
        names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        same = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) == names
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno and same
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != code.co_name:
        return False
    return min([node.lineno, *(each.lineno for each in node.decorator_list)]) == code.co_firstlineno


def _span(node: ast.expr) -> tuple[int | None, int | None, int | None, int | None]:
    """Where an expression stands, as code tells it."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _defined(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """The classes in `node` by their qualified name."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _Definition):
            yield from _defined(child, prefix)
            continue
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
        yield from _defined(child, f"{prefix}{child.name}." + ("" if isinstance(child, ast.ClassDef) else "<locals>."))


def _bare(node: ast.AST | None) -> object:
    """A definition as data, without the decorators, which have done their work, and whatever changes nothing."""
    data = _data(node)
    if isinstance(node, _Definition):
        cast("list[dict[str, object]]", data)[1].pop("decorator_list", None)
    return data


def _data(node: object) -> object:
    if isinstance(node, list):
        return [_data(each) for each in cast("list[object]", node)]
    if not isinstance(node, ast.AST):
        return node if isinstance(node, str) else [type(node).__name__, repr(node)]
    given = {name: value for name, value in ast.iter_fields(node) if name not in _POSITIONLESS}
    if isinstance(node, _Definition) and ast.get_docstring(node, clean=False) is not None:
        given["body"] = node.body[1:]
    # what is empty is left out, because other versions of Python know more that can be
    return [type(node).__name__, {name: _data(value) for name, value in given.items() if value not in (None, [])}]
