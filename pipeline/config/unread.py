"""What stands for a stage that could not be built, so that the stages around it can be checked in the same pass.

Its name is known to later templates and nothing is known of its fields, so that no mistake is told that is only the
echo of another one. What could be read of it is checked too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.names import Fields
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Body, Stage, Template
from pipeline.core.streams import Inbox, Outbox
from pipeline.core.templates import Expression
from pipeline.core.templates import Template as Text

#: what bodies may see; which of them a stage that is not known gives is not known either
_BODY_NAMES = frozenset({"part", "parts", "round", "sample"})

#: what an expression that folds outputs sees
_FOLD_NAMES = frozenset({"total", "value"})


@dataclass(frozen=True)
class UnreadStage(Stage):
    """A stage with mistakes that have been told."""

    outputs: tuple[str, ...] = ()
    values: Mapping[str, object] = field(default_factory=dict[str, object])  #: the options that could be read
    opaque: bool = False  #: a body could not be read, so what its templates may see is not known
    reduces: bool = False  #: it has reducers that could not be read

    async def run(self, inbox: Inbox, outbox: Outbox, scope: object) -> None:
        raise TypeError("a stage that could not be built is never run")

    def templates(self) -> Mapping[str, Template]:
        """Those that use nothing which the stage itself may give them, as `until` and `reduce` do."""
        if self.opaque:
            return {}
        made = {name for _, stage in self._stages() for name in stage.produces()} | _BODY_NAMES | _FOLD_NAMES
        found = {option: value for option, value in self.values.items() if isinstance(value, Text | Expression)}
        return {option: value for option, value in found.items() if not value.names & made}

    def bodies(self) -> Mapping[str, Body]:
        shared = frozenset(self.produces()) - {self.name}  # it may have had reducers for them
        return {label: Body(stage, _BODY_NAMES, shared=shared) for label, stage in self._stages()}

    def produces(self) -> Mapping[str, Fields | None]:
        written = Counter(name for _, stage in self._stages() for name in stage.produces())
        reduced = [name for name, times in written.items() if times > 1] if self.reduces else []
        return dict.fromkeys((*self.outputs, *reduced))

    def _stages(self) -> Iterator[tuple[str, Stage]]:
        """The bodies, by label; by option too where that is needed to tell them apart."""
        labels = Counter(label for value in self.values.values() for label in _bodies_in(value))
        for option, value in self.values.items():
            for label, stage in _bodies_in(value).items():
                yield (label if label and labels[label] == 1 else f"{option}.{label}"), stage


def _bodies_in(value: object) -> Mapping[str, Stage]:
    inner = cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {"": value}
    return {label: stage for label, stage in inner.items() if isinstance(stage, Stage)}


def other_problems(
    stages: object, options: Mapping[str, object], variables: Mapping[str, object], doubtful: Collection[str]
) -> list[Problem]:
    """What the engine finds in a pipeline some of which could not be built.

    `doubtful` are names of stages that have been refused as names, "" for one without any: what a template can see is
    not known then.
    """
    whole = stages if isinstance(stages, Stage) else UnreadStage("")
    try:
        Pipeline(whole, variables=variables, **options)  # pyright: ignore[reportArgumentType]
    except DefinitionError as error:
        found = [problem for problem in error.problems if problem.stage not in doubtful or problem.option is not None]
        return [problem for problem in found if "" not in doubtful or not problem.message.startswith("uses ")]
    return []
