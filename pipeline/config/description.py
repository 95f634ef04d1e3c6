"""Loads a pipeline file into definitions: the stages composed, the models, the options, and where each of them stands.

    description = load("review.yaml", overrides=["stages.draft.concurrency=8"])
    Pipeline(description.stages, **description.options)

Loading calls no model, opens no connection, and imports only installed kinds of stages and what `allow_import` names.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from pipeline.config.document import MOST_BYTES, read_document
from pipeline.config.environment import interpolate
from pipeline.config.fields import read_fields, unknown_key
from pipeline.config.models import ModelReader
from pipeline.config.nodes import Entry, Mark, Scalar, Table, describe
from pipeline.config.overrides import apply_overrides
from pipeline.config.problems import ConfigError, Located, one_line
from pipeline.config.registry import InstalledModels, InstalledWords, ModelProvider
from pipeline.config.stages import Place, StageReader, located
from pipeline.config.unread import other_problems
from pipeline.config.values import Wrong, read_value, wrong
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.stage import ERROR_ACTIONS, Stage
from pipeline.core.words import Field, Word

T = TypeVar("T")

_SECTIONS = ("version", "models", "pipeline", "vars", "stages")
_OPTIONS: Mapping[str, Field] = {
    "max_in_flight": Field("count"),
    "ordered": Field("flag"),
    "on_error": Field("choice", choices=ERROR_ACTIONS),
    "max_failures": Field("count_or_share"),
    "item_timeout": Field("duration"),
    "watchdog": Field("duration"),
    "stall_timeout": Field("duration"),
    "buffer_size": Field("count"),
    "budget": Field("budget"),
    "debug": Field("flag"),
}


@dataclass(frozen=True)
class Description:
    """What a pipeline file says, as definitions."""

    name: str  #: the file
    stages: Stage  #: all stages as one
    models: Mapping[str, object]  #: the definitions of `models:`, by name
    options: Mapping[str, object]  #: of `pipeline:`, those that are given, as keywords of `Pipeline`
    vars: Mapping[str, object]  #: what templates see as `vars`
    where: Mapping[tuple[str | None, str | None], Place] = field(repr=False)  #: by (stage, option)
    text: str = field(repr=False)  #: the document as it was read

    def explain(self, error: DefinitionError) -> ConfigError:
        """The problems that the engine found in these definitions, shown in the file."""
        return ConfigError(self.name, self.text, [located(problem, self.where) for problem in error.problems])

    def warnings(self, doubts: Iterable[Problem]) -> list[str]:
        """What the engine doubts in these definitions, a line each, with its place in the file."""
        return [one_line(self.name, located(problem, self.where)) for problem in doubts]


def load(
    path: str | Path,
    *,
    overrides: Sequence[str] = (),
    variables: Mapping[str, object] | None = None,
    allow_import: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    words: Mapping[str, Word] | None = None,
    models: ModelProvider | None = None,
) -> Description:
    """Read the file at `path`. Raises `ConfigError` with every problem that can be found without running it.

    `overrides` are the texts of `--set`, `variables` those of `--var`; `allow_import` names the modules and packages
    that `call:` may import from. `environment` serves `${VARIABLE}` (default: that of the process). `words` and
    `models` replace the installed stage kinds and model providers.
    """
    return load_text(
        content_of(path),
        str(path),
        overrides=overrides,
        variables=variables,
        allow_import=allow_import,
        environment=environment,
        words=words,
        models=models,
    )


def content_of(path: str | Path) -> bytes:
    """What is in the file at `path`, one byte more than allowed at most. Raises `ConfigError`."""
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        message = f"cannot be read: {error.strerror or error}"
        raise ConfigError(str(path), "", [Located("E100", message)]) from error


def load_text(
    text: str | bytes,
    name: str = "pipeline.yaml",
    *,
    overrides: Sequence[str] = (),
    variables: Mapping[str, object] | None = None,
    allow_import: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    words: Mapping[str, Word] | None = None,
    models: ModelProvider | None = None,
) -> Description:
    """Read a document that is already in memory; `name` is shown, and its extension tells the format. See `load`."""
    words = InstalledWords() if words is None else words
    document, content = read_document(text, name)
    if not isinstance(document, Table):
        problem = Located("E101", f"the file must be a mapping, not {describe(document)}", document.mark, "version: 1")
        raise ConfigError(name, content, [problem])
    root, problems = apply_overrides(document, overrides, list(words))
    root, more = _with_environment(root, os.environ if environment is None else environment)
    reader = _Reader(words, models or InstalledModels(), allow_import, [*problems, *more])
    stages, options, defaults = reader.read(root)
    variables = {**defaults, **(variables or {})}
    if reader.problems or stages is None:
        others = other_problems(stages, options, variables, reader.stages.doubtful)
        raise ConfigError(name, content, [*reader.problems, *(located(p, reader.stages.where) for p in others)])
    return Description(
        name=name,
        stages=stages,
        models=reader.models.definitions,
        options=options,
        vars=variables,
        where=reader.stages.where,
        text=content,
    )


def _with_environment(root: Table, environment: Mapping[str, str]) -> tuple[Table, list[Located]]:
    problems: list[Located] = []
    for section in ("models", "pipeline"):
        entry = root.get(section)
        if entry is not None:
            value, found = interpolate(entry.value, environment)
            root = root.with_entry(Entry(section, entry.mark, value))
            problems += found
    return root, problems


class _Reader:
    """One pass over the sections; problems gather, so that one look shows them all."""

    def __init__(
        self,
        words: Mapping[str, Word],
        provider: ModelProvider,
        allow_import: Sequence[str],
        problems: Iterable[Located],
    ) -> None:
        self.problems = [*problems]
        self.models = ModelReader(provider)
        self.stages = StageReader(words, self.models, allow_import)

    def read(self, root: Table) -> tuple[Stage | None, Mapping[str, object], Mapping[str, object]]:
        self.problems += [unknown_key(e, _SECTIONS, "the file") for e in root.entries if e.key not in _SECTIONS]
        self._version(root)
        models, options, variables = root.get("models"), root.get("pipeline"), root.get("vars")
        if models is not None:
            self.problems += self.models.read(models.value)
        found = self._stages(root), self._options(options), self._vars(variables)
        self.problems += self.stages.problems
        return found

    def _version(self, root: Table) -> None:
        entry = root.get("version")
        if entry is None:
            start = Mark(root.mark.line, root.mark.column, root.mark.line, root.mark.column + 1)
            self.problems.append(Located("E104", "the file needs 'version'", start, "version: 1"))
        elif not isinstance(entry.value, Scalar) or entry.value.value != 1 or entry.value.value is True:
            message = f"'version' must be 1, not {describe(entry.value)}"
            self.problems.append(Located("E101", message, entry.value.mark))

    def _stages(self, root: Table) -> Stage | None:
        entry = root.get("stages")
        if entry is None:
            self.problems.append(Located("E104", "the file needs 'stages'", Mark(), "stages: followed by a list"))
            return None
        return cast("Stage | None", self._try(lambda: self.stages.body(entry.value, "'stages'")))

    def _options(self, entry: Entry | None) -> Mapping[str, object]:
        if entry is None:
            return {}
        if not isinstance(entry.value, Table):
            self.problems += wrong(entry.value, "'pipeline'", "a mapping").problems
            return {}
        for option in entry.value.entries:
            self.stages.where[None, option.key] = Place(option.value.mark, "E110")
        given, mark = entry.value.entries, entry.mark
        values: dict[str, object] = {}  # also of those that can be read beside a wrong one

        def keep(field: Field, option: Entry, what: str) -> object:
            values[option.key] = value = read_value(field, option.value, what)
            return value

        self._try(lambda: read_fields(given, _OPTIONS, "the pipeline", mark, keep))
        return values

    def _vars(self, entry: Entry | None) -> Mapping[str, object]:
        if entry is None:
            return {}
        value = self._try(lambda: read_value(Field("mapping"), entry.value, "'vars'"))
        if value is None:
            self.stages.doubtful.add("")  # what templates may use of it is not known
        return cast("Mapping[str, object]", value or {})

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except Wrong as error:
            self.problems += error.problems
            return None
