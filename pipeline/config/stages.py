"""Reads lists of stages into one composed stage: `- kind: name` and options, composites holding lists.

What a kind means is its word's business; this reader only turns options into values, bottom up, so that a builder
receives its bodies as stages that exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, NamedTuple, cast

from pipeline.config.fields import read_fields
from pipeline.config.imports import import_callable
from pipeline.config.models import ModelReader
from pipeline.config.nodes import Entry, Listing, Mark, Node, Scalar, Table
from pipeline.config.problems import Located
from pipeline.config.unread import UnreadStage
from pipeline.config.values import Wrong, read_value, wrong
from pipeline.core.ballot import Key
from pipeline.core.errors import DefinitionError, PipelineError, Problem
from pipeline.core.joins import Join, majority
from pipeline.core.members import JoinFunction
from pipeline.core.names import join_names, suggestion
from pipeline.core.stage import Chain, Stage, as_stage
from pipeline.core.words import Field, Word

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEMPLATES = ("template", "expression", "decision", "by", "join")
_CALL = '{call: "module:attribute"}'


class Place(NamedTuple):
    """Where an option stands, and the code of a problem with it."""

    mark: Mark
    code: str


class StageReader:
    """Reads the stages of one file. What changes: `where` fills with the place of every stage and option, `problems`
    with what is wrong, and `doubtful` with names that were refused."""

    def __init__(self, words: Mapping[str, Word], models: ModelReader, allow_import: Sequence[str]) -> None:
        self._words = words
        self._models = models
        self._allow_import = allow_import
        self._named: dict[str, Mark] = {}
        self.problems: list[Located] = []
        self.doubtful: set[str] = set()
        self.where: dict[tuple[str | None, str | None], Place] = {}

    def body(self, node: Node, what: str) -> object:
        """The stages of a list as one; what is wrong with them is in `problems`. Raises `Wrong` for what is no list."""
        if not isinstance(node, Listing):
            raise wrong(node, what, "a list of stages")
        if not node.items:
            raise Wrong(Located("E101", f"{what} needs at least one stage", node.mark))
        stages = [self.stage(item) for item in node.items]
        if any(isinstance(stage, UnreadStage) for stage in stages):
            return Chain.of(*(self._checkable(*pair) for pair in zip(stages, node.items, strict=True)))
        return self._built(lambda: chain(stages), None, node.mark)

    def stage(self, node: Node) -> object:
        """One stage. If it cannot be built, the reasons are in `problems`, and something stands in its place."""
        values: dict[str, object] = {}
        try:
            return self._stage(node, values)
        except Wrong as error:
            self.problems += error.problems
            return self._stand_in(node, values)

    def _stand_in(self, node: Node, values: Mapping[str, object]) -> UnreadStage:
        entries = node.entries if isinstance(node, Table) else ()
        head = next((entry for entry in entries if entry.key in self._words), entries[0] if entries else None)
        name = head.value.text if head and isinstance(head.value, Scalar) else ""
        if not _NAME.fullmatch(name):
            self.doubtful.add("")
            return UnreadStage("", (), values)
        word = self._known(head)
        outputs = [name, *(f"{name}_{output}" for output in (word.outputs if word is not None else ()))]
        for entry in entries:
            if isinstance(entry.value, Scalar) and _is_output(entry.key):
                outputs.append(entry.value.text)
            elif isinstance(entry.value, Table) and entry.key == "reducers":
                outputs += entry.value.keys()
        if word is None:
            return UnreadStage(name, tuple(outputs), values)
        given = [entry.key for entry in entries[1:]]
        lost = {option: field for option, field in word.fields.items() if option not in values}
        seen = {option: value for option, value in values.items() if not word.fields[option].sees}
        opaque = any(field.kind == "body" and (field.required or option in given) for option, field in lost.items())
        reducers = [option for option, field in lost.items() if field.kind == "reducers"]
        reduces = any(key in reducers or suggestion(key, reducers) for key in given if key not in values)
        return UnreadStage(name, tuple(outputs), seen, opaque, reduces)

    def _known(self, head: Entry | None) -> Word | None:
        """The word of a stage, if it has one that can be loaded."""
        try:
            return self._words[head.key] if head is not None and head.key in self._words else None
        except Exception:  # that has been told
            return None

    def _checkable(self, stage: object, node: Node) -> Stage:
        try:
            return as_stage(stage)
        except DefinitionError:  # what a word has built need not be known here
            return self._stand_in(node, {})

    def _stage(self, node: Node, read: dict[str, object]) -> object:
        """One stage. `read` fills with the options that could be read. Raises `Wrong`."""
        head, word, problems = self._head(node)
        options = cast(Table, node).entries[1:]
        name = head.value.text if isinstance(head.value, Scalar) else ""
        self.where[name, None] = Place(head.value.mark, "E110")
        for entry in options:
            kind = word.fields[entry.key].kind if entry.key in word.fields else None
            self.where[name, entry.key] = Place(entry.value.mark, "E210" if kind in _TEMPLATES else "E110")
        if problems:
            self.doubtful.add(name)
        values, found = self._options(word, f"stage {name!r}", head, options, read)
        if values is None or problems or any(isinstance(value, UnreadStage) for value in values.values()):
            raise Wrong(*problems, *found)
        return self._built(lambda: word.build(name, **values), name, head.value.mark)

    def _head(self, node: Node) -> tuple[Entry, Word, list[Located]]:
        """The first entry of a stage, its word, and what is wrong with its name."""
        kinds = sorted(self._words)
        if not isinstance(node, Table) or not node.entries:
            example = f"- {kinds[0]}: name" if kinds else None
            raise Wrong(Located("E103", "a stage is a mapping that starts with its kind and name", node.mark, example))
        head = node.entries[0]
        if head.key not in self._words:
            raise Wrong(_no_kind(node, kinds))
        try:
            word = self._words[head.key]
        except Exception as error:  # a foreign package that cannot be imported
            raise Wrong(Located("E311", f"loading the kind {head.key!r} failed: {error}", head.mark)) from error
        return head, word, self._name_problems(head)

    def _name_problems(self, head: Entry) -> list[Located]:
        node = head.value
        text = node.text if isinstance(node, Scalar) else ""
        if not isinstance(node, Scalar) or not _NAME.fullmatch(text) or node.value is None:
            message = f"the name of {_a(head.key)} is letters, digits and underscores, so that templates can use it"
            return [Located("E105", message, head.mark if node.mark == head.mark else node.mark, f"{head.key}: name")]
        first = self._named.setdefault(text, node.mark)
        if first is not node.mark:
            place = f"first in line {first.line}" if first.line else "names are unique in a pipeline"
            return [Located("E105", f"the name {text!r} is used by two stages; {place}", node.mark)]
        return []

    def _options(
        self, word: Word, owner: str, head: Entry, options: Sequence[Entry], read: dict[str, object]
    ) -> tuple[dict[str, object] | None, list[Located]]:
        fields, given = dict(word.fields), {entry.key for entry in options}
        values: dict[str, object] = {}
        problems: list[Located] = []
        broken = False
        for name, field in word.fields.items():
            if field.kind == "model" and field.required and name not in given:
                fields[name] = replace(field, required=False)
                try:
                    model = self._models.fallback()
                except Wrong:
                    broken = True
                    continue
                if model is None:
                    problems.append(Located("E104", f"{owner} needs {name!r}", head.value.mark, self._models.advice()))
                values[name] = model

        def keep(field: Field, entry: Entry, what: str) -> object:
            read[entry.key] = value = self._value(field, entry, what)
            return value

        try:
            values |= read_fields(options, fields, owner, head.value.mark, keep)
        except Wrong as error:
            return None, [*problems, *error.problems]
        return (None if broken or problems else values), problems

    def _value(self, field: Field, entry: Entry, what: str) -> object:
        node = entry.value
        match field.kind:
            case "model":
                return self._models.find(node, what)
            case "models":
                items = node.items if isinstance(node, Listing) else (node,)
                return tuple(_all([lambda item=item: self._models.find(item, what) for item in items]))
            case "body":
                return self.body(node, what)
            case "bodies":
                return self._bodies(node, what)
            case "call":
                return import_callable(node, what, self._allow_import)
            case "calls":
                items = node.items if isinstance(node, Listing) else (node,)
                return tuple(
                    _all([lambda item=item: import_callable(item, what, self._allow_import) for item in items])
                )
            case "decision" | "by":
                return self._decision(field, node, what)
            case "join":
                return self._join(field, node, what)
            case "reducers":
                return self._reducers(field, node, what)
            case _:
                return read_value(field, node, what)

    def _bodies(self, node: Node, what: str) -> dict[str, object]:
        if not isinstance(node, Table):
            raise wrong(node, what, "a mapping from label to list of stages")
        if not node.entries:
            raise Wrong(Located("E101", f"{what} needs at least one label with a list of stages", node.mark))
        bodies = _all([lambda e=entry: self.body(e.value, f"{e.key!r} in {what}") for entry in node.entries])
        return dict(zip(node.keys(), bodies, strict=True))

    def _decision(self, field: Field, node: Node, what: str) -> object:
        if not isinstance(node, Table):
            return read_value(Field("expression"), node, what)
        if node.keys() == ["call"]:
            return import_callable(node.entries[0].value, what, self._allow_import)
        if field.kind == "by":
            return self.stage(node)
        raise wrong(node, what, f"an expression {{{{ … }}}} or {_CALL}")

    def _join(self, field: Field, node: Node, what: str) -> Join:
        if not isinstance(node, Table) or node.keys() not in (["call"], ["majority"]):
            return cast(Join, read_value(field, node, what))
        entry = node.entries[0]
        if entry.key == "majority":
            return majority(cast("Key", self._decision(field, entry.value, f"'majority' in {what}")))
        try:
            return Join.of(cast(JoinFunction, import_callable(entry.value, what, self._allow_import)))
        except ValueError as error:
            raise Wrong(Located("E101", f"{what}: {error}", entry.value.mark)) from None

    def _reducers(self, field: Field, node: Node, what: str) -> dict[str, object]:
        if not isinstance(node, Table):
            raise wrong(node, what, f"a mapping from output to {join_names(field.choices)} or {_CALL}")
        read = [lambda e=entry: self._reducer(field, e.value, f"{e.key!r} in {what}") for entry in node.entries]
        return dict(zip(node.keys(), _all(read), strict=True))

    def _reducer(self, field: Field, node: Node, what: str) -> object:
        if isinstance(node, Table) and node.keys() == ["call"]:
            return import_callable(node.entries[0].value, what, self._allow_import)
        if isinstance(node, Scalar):
            return read_value(replace(field, kind="choice"), node, what)
        raise wrong(node, what, f"one of {join_names(field.choices)}, or {_CALL}")

    def _built(self, make: Callable[[], object], name: str | None, mark: Mark) -> object:
        try:
            return make()
        except DefinitionError as error:
            at = {**self.where, (None, None): Place(mark, "E110")}
            problems = (replace(problem, stage=problem.stage or name) for problem in error.problems)
            raise Wrong(*(located(problem, at) for problem in problems)) from error
        except (ValueError, TypeError, PipelineError) as error:
            owner = f"stage {name!r}" if name else "these stages"
            raise Wrong(Located("E110", f"{owner}: {error}", mark)) from error


def chain(stages: Iterable[object]) -> object:
    """Compose stages with `|`, as code does."""
    return reduce(lambda left, right: left | right, cast("Iterable[Any]", stages))


def located(problem: Problem, where: Mapping[tuple[str | None, str | None], Place]) -> Located:
    """The place in the file of a problem that the engine found."""
    stage, option = problem.stage, problem.option
    if stage and (stage, None) not in where:
        stage = stage.partition(".")[0]  # a part that the stage has made
    owner = f"stage {stage!r}" if stage else "the pipeline"
    what = f"{option!r} of {owner}" if option else owner
    keys = ((stage, option), (stage, None), (None, None))
    place = next((where[key] for key in keys if key in where), Place(Mark(), "E110"))
    if place.code == "E210" and problem.message.startswith("uses "):
        return Located("E210", f"{what} {problem.message}", place.mark, problem.hint)
    return Located("E110", f"{what}: {problem.message}", place.mark, problem.hint)


def _is_output(key: str) -> bool:
    return key == "output_key" or suggestion(key, ["output_key"]) is not None


def _all(reads: Iterable[Callable[[], object]]) -> list[object]:
    """What each of `reads` returns. Raises `Wrong` with the problems of all of them."""
    values: list[object] = []
    failures: list[Wrong] = []
    for read in reads:
        try:
            values.append(read())
        except Wrong as error:
            failures.append(error)
    if failures:
        raise Wrong(*(problem for failure in failures for problem in failure.problems))
    return values


def _no_kind(node: Table, kinds: Sequence[str]) -> Located:
    head = node.entries[0]
    later = next((entry.key for entry in node.entries if entry.key in kinds), None)
    if later:
        message = f"a stage starts with its kind: put {later!r} before {head.key[:60]!r}"
        return Located("E103", message, head.mark)
    hint = suggestion(head.key, kinds) or f"known here: {join_names(kinds)}"
    return Located("E103", f"there is no kind of stage {head.key[:60]!r}", head.mark, hint)


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeiou' else 'a'} {noun}"
