"""Reads the `models:` of a file into definitions, and finds the one that a stage means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pipeline.config.fields import literal_secret, read_fields
from pipeline.config.nodes import Entry, Listing, Mark, Node, Scalar, Table, describe, scalars
from pipeline.config.problems import Located
from pipeline.config.registry import ModelProvider
from pipeline.config.values import Wrong, read_value, wrong
from pipeline.core.errors import DefinitionError, PipelineError
from pipeline.core.names import join_names, suggestion
from pipeline.core.words import Field

DEFAULT = "default"

_KEY = re.compile(r"\bsk-[\w-]{16,}|\b[Bb]earer\s+\S{8,}")

_BROKEN = object()  #: stands for a model whose problems have been said
_UNREAD = object()  #: stands for a model that has not been come to


class ModelReader:
    """The models of one file, by name; those given as `provider/model` inside a stage are made when they are met."""

    def __init__(self, provider: ModelProvider) -> None:
        self._provider = provider
        self._named: dict[str, object] = {}
        self._entries: dict[str, Entry] = {}
        self._reading: list[str] = []  #: models that are being read, each because the one before it falls back to it

    @property
    def definitions(self) -> Mapping[str, object]:
        return {name: model for name, model in self._named.items() if model is not _BROKEN}

    def read(self, node: Node) -> list[Located]:
        """Read the section; return what is wrong in it."""
        if not isinstance(node, Table):
            return [*wrong(node, "'models'", "a mapping from name to model").problems]
        self._entries = {entry.key: entry for entry in node.entries}
        self._named = dict.fromkeys(self._entries, _UNREAD)
        problems: list[Located] = []
        for entry in node.entries:
            problems += self._read_entry(entry)
        return problems

    def _read_entry(self, entry: Entry) -> list[Located]:
        """Read one model, unless it was read as a fallback of an earlier one; return what is wrong in it."""
        if self._named[entry.key] is not _UNREAD:
            return []
        self._named[entry.key] = _BROKEN
        self._reading.append(entry.key)
        try:
            self._named[entry.key] = self._model(entry)
        except Wrong as error:
            return list(error.problems)
        finally:
            self._reading.pop()
        return []

    def fallback(self) -> object | None:
        """The model of a stage that names none: the one called `default`, or the only one. Raises empty `Wrong`."""
        if DEFAULT in self._named:
            return self._sound(self._named[DEFAULT])
        return self._sound(next(iter(self._named.values()))) if len(self._named) == 1 else None

    def advice(self) -> str:
        """How to give a stage its model."""
        if self._named:
            return f"name one of {join_names(self._named)}, or call one of them 'default'"
        return "write provider/model, or define one under 'models'"

    def find(self, node: Node, what: str) -> object:
        """The model that a stage names. Raises `Wrong`."""
        if not isinstance(node, Scalar) or not isinstance(node.value, str):
            raise wrong(node, what, "the name of a model, or provider/model")
        if node.value in self._named:
            return self._sound(self._named[node.value])
        if "/" in node.value:
            return self._resolve(node.value, {}, node.mark, what, None)
        hint = suggestion(node.value, self._named) or self.advice()
        raise Wrong(Located("E301", f"{what}: there is no model {node.value[:60]!r}", node.mark, hint))

    def _sound(self, model: object) -> object:
        if model is _BROKEN:
            raise Wrong
        return model

    def _model(self, entry: Entry) -> object:
        owner, table = f"model {entry.key!r}", entry.value
        if not isinstance(table, Table):
            hint = f"{entry.key}: {{use: provider/model}}"
            problem = Located("E101", f"{owner} must be a mapping, not {describe(table)}", table.mark, hint)
            raise Wrong(problem)
        use = table.get("use")
        if use is None:
            raise Wrong(Located("E104", f"{owner} needs 'use'", entry.mark, "use: provider/model"))
        if not isinstance(use.value, Scalar) or not isinstance(use.value.value, str):
            raise wrong(use.value, f"'use' of {owner}", "provider/model")
        name = use.value.value
        fields = self._options(name, owner, use.value.mark)
        rest = [option for option in table.entries if option.key != "use"]
        try:
            values = read_fields(rest, fields, owner, entry.mark, self._read_option)
        except Wrong as error:
            raise (_of_another(entry.key, error) if use.mark.origin and not entry.mark.origin else error) from None
        written = [option for option in rest if any(_is_key(scalar) for scalar in scalars(option.value))]
        if written:
            raise Wrong(*(literal_secret(option, owner) for option in written))
        return self._resolve(name, values, use.value.mark, owner, table)

    def _read_option(self, field: Field, entry: Entry, what: str) -> object:
        if field.kind != "models":
            return read_value(field, entry.value, what)
        nodes = entry.value.items if isinstance(entry.value, Listing) else (entry.value,)
        models: list[object] = []
        problems: list[Located] = []
        for node in nodes:
            try:
                problems += self._read_first(node, what)
                models.append(self.find(node, what))
            except Wrong as error:
                problems += error.problems
        if problems or len(models) < len(nodes):
            raise Wrong(*problems)
        return tuple(models)

    def _read_first(self, node: Node, what: str) -> list[Located]:
        """Read the model that another one falls back to, if it stands further below; return what is wrong in it."""
        name = node.value if isinstance(node, Scalar) and isinstance(node.value, str) else ""
        if name in self._reading:
            circle = " -> ".join([*self._reading[self._reading.index(name) :], name])
            problem = Located("E301", f"{what}: the models fall back to each other ({circle})", node.mark)
            raise Wrong(replace(problem, hint="let the last of them have no fallback"))
        return self._read_entry(self._entries[name]) if name in self._entries else []

    def _options(self, use: str, owner: str, mark: Mark) -> Mapping[str, Field]:
        try:
            # `api_key` is refused by its name, and not to be named among what is known
            return {name: field for name, field in self._provider.options(use).items() if name != "api_key"}
        except DefinitionError as error:
            raise Wrong(*(Located("E301", f"{owner}: {p.message}", mark, p.hint) for p in error.problems)) from error
        except (ValueError, PipelineError) as error:
            raise Wrong(Located("E301", f"{owner}: {error}", mark)) from error

    def _resolve(self, use: str, values: Mapping[str, object], mark: Mark, owner: str, table: Table | None) -> object:
        code = "E302" if table else "E301"
        try:
            return self._provider.resolve(use, **values)
        except DefinitionError as error:
            problems: list[Located] = []
            for problem in error.problems:
                option = table.get(problem.option.partition(".")[0]) if table and problem.option else None
                what = f"{problem.option!r} of {owner}" if option else owner
                place = option.value.mark if option else mark
                known = "E301" if problem.option == "use" else code
                problems.append(Located(known, f"{what}: {problem.message}", place, problem.hint))
            raise Wrong(*problems) from error
        except (ValueError, TypeError, PipelineError) as error:
            raise Wrong(Located(code, f"{owner}: {error}", mark)) from error


def _of_another(model: str, error: Wrong) -> Wrong:
    """What is wrong with options that were written for another provider than the one a flag has set."""
    hint = f"to exchange the whole model: --set models.{model}=provider/model"
    return Wrong(*(replace(each, hint=hint) if each.code == "E102" else each for each in error.problems))


def _is_key(scalar: Scalar) -> bool:
    """Whether a setting is a key that somebody has written out, as in `headers: {Authorization: Bearer …}`."""
    return not scalar.from_environment and _KEY.search(scalar.text) is not None
