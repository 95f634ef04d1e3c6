"""Imports `module:attribute` for a pipeline file, and only from modules that the caller has allowed.

A pipeline file may come from anywhere, and importing runs code; so the file asks, and the flag decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from pipeline.config.nodes import Mark, Node, Scalar
from pipeline.config.problems import Located
from pipeline.config.values import Wrong, wrong

_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII)


def import_callable(node: Node, what: str, allow_import: Sequence[str]) -> Callable[..., object]:
    """Return the object that `node` names. Raises `Wrong` when it may not, or cannot, be imported."""
    text = node.value if isinstance(node, Scalar) else None
    found = _TARGET.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise wrong(node, what, "'module:attribute'")
    module, path = found[1], found[2]
    if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in allow_import):
        message = f"{what} asks to import {module!r}, which is not allowed"
        raise Wrong(Located("E310", message, node.mark, f"allow it with --allow-import {_flag(module)}"))
    thing = _imported(module, path, what, node.mark)
    if not callable(thing):
        raise Wrong(Located("E311", f"{what}: {found[0]!r} is a {type(thing).__name__}, not a function", node.mark))
    return thing


def _imported(module: str, path: str, what: str, mark: Mark) -> object:
    try:
        thing: object = import_module(module)
    except Exception as error:  # whatever a foreign module raises belongs to the file that asked for it
        hint = _where_it_is(module, error)
        raise Wrong(Located("E311", f"{what}: importing {module!r} failed: {_said(error)}", mark, hint)) from error
    for name in path.split("."):
        if not hasattr(thing, name):
            raise Wrong(Located("E311", f"{what}: {module!r} has no {path!r}", mark))
        thing = getattr(thing, name)
    return thing


def _where_it_is(module: str, error: Exception) -> str | None:
    """The flag that finds `module`, when it is not found and lies in the current directory, which is not searched."""
    package = module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name != package or _flag(module) == package:
        return None
    return f"it lies in the current directory: --allow-import {_flag(module)}"


def _flag(module: str) -> str:
    """What `--allow-import` is given for `module`: its package, by place if that lies in the current directory."""
    package = module.partition(".")[0]
    here = Path(package)
    return f"./{package}" if here.is_dir() or here.with_suffix(".py").is_file() else package


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
