"""From the command line to a pipeline: the file, and what flags change in it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

from pipeline.cli.exits import UsageError
from pipeline.config.description import Description, content_of, load_text
from pipeline.config.document import MOST_BYTES
from pipeline.config.registry import InstalledModels, InstalledWords
from pipeline.core.errors import DefinitionError
from pipeline.core.pipeline import Pipeline
from pipeline.core.words import Word

#: who hears what is legal and surely not meant
Notice: TypeAlias = Callable[[str], object]


def _unheard(warning: str) -> None:
    """Nobody asked."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What flags change in a pipeline file."""

    overrides: tuple[str, ...] = ()  #: `--set`
    variables: Mapping[str, object] = field(default_factory=dict[str, object])
    allow_import: tuple[str, ...] = ()
    concurrency: int | None = None  #: of agents that do not say
    stream: bool = False  #: of agents that do not say
    models: Mapping[str, object] = field(default_factory=dict[str, object])  #: options of all models that have them
    options: Mapping[str, object] = field(default_factory=dict[str, object])  #: over those of the file
    defaults: Mapping[str, object] = field(default_factory=dict[str, object])  #: under those of the file


def read_pipeline(path: str, changes: Changes, notice: Notice = _unheard) -> Pipeline:
    """The pipeline in the file at `path`, `-` for stdin; `notice` hears warnings. Raises `ConfigError` with all its
    problems."""
    return read_text(read_content(path), "stdin" if path == "-" else path, changes, notice)


def read_content(path: str) -> bytes:
    """What is in the file at `path`, `-` for stdin, as far as a pipeline file may be long. Raises `ConfigError`."""
    return sys.stdin.buffer.read(MOST_BYTES + 1) if path == "-" else content_of(path)


def read_text(text: str | bytes, name: str, changes: Changes, notice: Notice = _unheard) -> Pipeline:
    """The pipeline that `text` describes; `notice` hears warnings. Raises `ConfigError`."""
    description = load_text(
        text,
        name,
        overrides=changes.overrides,
        variables=changes.variables,
        allow_import=importable(changes.allow_import),
        words=_Words(changes),
        models=_Models(changes.models),
    )
    return _built(description, changes, notice)


def importable(packages: tuple[str, ...]) -> tuple[str, ...]:
    """The modules that a pipeline file may import from.

    A name is looked up as Python does, and the current directory is not searched. `./tools` and `lib/tools.py` name
    modules by place: their directory is then searched, after all others. Raises `UsageError`.
    """
    names: list[str] = []
    for package in packages:
        directory, name = os.path.split(package.rstrip(os.sep))
        name = name.removesuffix(".py")
        if not all(part.isidentifier() for part in name.split(".")):
            raise UsageError(f"--allow-import {package!r} names no module: write package, package.module or ./package")
        if directory:
            found = os.path.abspath(directory)
            if found not in sys.path:
                sys.path.append(found)
        names.append(name)
    return tuple(names)


def _built(description: Description, changes: Changes, notice: Notice) -> Pipeline:
    options = {**changes.defaults, **description.options, **changes.options}
    try:
        built = Pipeline(description.stages, variables=description.vars, **options)  # pyright: ignore[reportArgumentType]
    except DefinitionError as error:
        raise description.explain(error) from error
    for warning in description.warnings(built.doubts):
        notice(warning)
    return built


class _Models(InstalledModels):
    """The installed providers, with `options` over those of the file, where a provider has them."""

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__()
        self._over = options

    def resolve(self, use: str, **values: object) -> object:
        known = self.options(use)
        over = {name: value for name, value in self._over.items() if name in known}
        return super().resolve(use, **{**values, **over})


class _Words(Mapping[str, Word]):
    """The installed kinds of stages, with agents that have `concurrency` slots, and stream, unless they say
    otherwise."""

    def __init__(self, changes: Changes) -> None:
        self._installed = InstalledWords()
        slots = {} if changes.concurrency is None else {"concurrency": changes.concurrency}
        self._of_agents: Mapping[str, object] = {**slots, **({"stream": True} if changes.stream else {})}

    def __getitem__(self, kind: str) -> Word:
        word = self._installed[kind]
        if kind != "agent" or not self._of_agents:
            return word
        return replace(word, build=partial(word.build, **self._of_agents))

    def __contains__(self, kind: object) -> bool:
        return kind in self._installed

    def __iter__(self) -> Iterator[str]:
        return iter(self._installed)

    def __len__(self) -> int:
        return len(self._installed)
