"""The coordinator: one of several bodies an item, chosen by a function, a template or a classifying agent.

A route is two stages in a row: one that writes the label as output `<name>_label`, and a switch that sends the item to
the body of that label. The label set is declared, so nothing that a model says can lead anywhere else.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Literal, Never, TypeAlias, cast

from pipeline.calls.schema import Schema
from pipeline.core.agent import Agent, AgentStage, is_agent, stage_of_agent
from pipeline.core.arity import accepts
from pipeline.core.composite import Composite, CompositeRun, member
from pipeline.core.decisions import decision_problems, read_decision
from pipeline.core.errors import CallsClosed, DefinitionError, InvariantError, ItemError, Problem, Skip
from pipeline.core.groups import Group
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage, Process, Visited
from pipeline.core.names import Fields
from pipeline.core.replay import once
from pipeline.core.stage import Body, OnError, Stage, as_bodies, as_stage
from pipeline.core.streams import Inbox, Outbox
from pipeline.core.templates import Expression
from pipeline.core.visit import Visit, template_names
from pipeline.core.words import Field, Word
from stages.agent import ModelAgent

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

RouteOnError: TypeAlias = OnError | Literal["default"]
By: TypeAlias = Callable[..., object] | Expression | AgentStage

AsksLabel: TypeAlias = "Callable[[Item, Worker], Awaitable[object]]"

_DEFAULT = "default"


@dataclass(frozen=True)
class RouteStage(Stage):
    """Chooses a body by label. Its value is the chosen body's output, and `<name>_label` is the label."""

    by: By
    cases: tuple[tuple[str, Stage], ...]
    default: Stage | None = None
    on_error: RouteOnError | None = None

    @property
    def label_key(self) -> str:
        return f"{self.name}_label"

    def parts(self) -> tuple[Stage, ...]:
        return (self._labeller(), SwitchStage(self.name, self.cases, self.default, self._error_policy()))

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.label_key: {}, self.name: None}

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        await scope.run_chain(self.parts(), inbox, outbox)

    def _error_policy(self) -> OnError | None:
        return None if self.on_error == "default" else self.on_error

    def _labeller(self) -> LeafStage:
        to_default = self.on_error == "default"
        if isinstance(self.by, AgentStage):
            stage = self.by
            labels = tuple(label for label, _ in self.cases)
            asked = _asking_for(stage, labels)
            return AgentLabelStage(
                stage.name,
                stage.concurrency,
                self._error_policy(),
                asked,
                stage.prompt,
                self.label_key,
                to_default,
                cpu=stage.cpu,
                timeout=stage.timeout,
                pure=stage.pure,
            )
        policy = self._error_policy()
        return LabelStage(f"{self.name}_by", 1, policy, self.by, self.label_key, to_default, self.name)


def _asking_for(stage: AgentStage, labels: tuple[str, ...]) -> object:
    """The agent, answering an enum over the labels if it asks a model and was given no schema of its own."""
    if isinstance(stage.agent, ModelAgent) and stage.agent.schema is None:
        return replace(stage.agent, schema=Schema.of({"label": {"enum": list(labels)}}))
    return stage.agent


def label_of(answer: object) -> object:
    """The label in an answer: the text itself, or the `label` of a structured one.

    Labels are text; a boolean or a number is the label that reads like it in a pipeline file: `true`, `1`.
    """
    label = cast("Mapping[str, object]", answer).get("label") if isinstance(answer, Mapping) else answer
    label = getattr(label, "label", label)
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label) if type(label) in (int, float) else label


@dataclass(frozen=True)
class LabelStage(LeafStage):
    """Writes what a function or an expression says of the item as its label."""

    by: Callable[..., object] | Expression = str
    key: str = ""
    to_default: bool = False
    owner: str = ""  #: the route, whose name stands in messages

    functions: ClassVar[tuple[str, ...]] = ("by",)

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        return tuple(decision_problems(self.owner, "by", self.by, visit=True))

    def templates(self) -> Mapping[str, Expression]:
        return {"by": self.by} if isinstance(self.by, Expression) else {}

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.key: {}}

    def bind(self, scope: Scope) -> Process:
        by = self.by
        with_visit = not isinstance(by, Expression) and accepts(by, 2)

        async def ask(item: Item, worker: Worker) -> object:
            if isinstance(by, Expression):
                return label_of(by.evaluate(template_names(item)))
            answer = by(item.value, Visit(worker, item)) if with_visit else by(item.value)
            return label_of(await answer if inspect.isawaitable(answer) else answer)

        return _labelling(self, self.key, ask, pure=isinstance(by, Expression))


@dataclass(frozen=True)
class AgentLabelStage(AgentStage):
    """Lets an agent name the label; only the label is kept of its answer."""

    output_key: str | None = None
    to_default: bool = False

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.output_key or self.name: {}}

    def bind(self, scope: Scope) -> Process:
        ask = super().bind(scope)
        key = self.output_key or self.name

        async def label(item: Item, worker: Worker) -> object:
            answered = ask(item, worker)
            answer = await answered if inspect.isawaitable(answered) else answered
            return label_of(None if answer is None else answer.value)

        return _labelling(self, key, label, pure=False)


def _labelling(stage: LabelStage | AgentLabelStage, key: str, ask: AsksLabel, *, pure: bool) -> Process:
    """The visit that writes what `ask` says as the label of the item; with a journal it is asked once."""

    async def asked(item: Item, worker: Worker) -> object:
        try:
            return await ask(item, worker)
        except (Skip, CallsClosed, InvariantError):
            raise
        except Exception as error:
            parks = getattr(error, "parks", False) and item.frame.root.page is not None
            if not stage.to_default or getattr(error, "stops_run", False) or parks:
                raise
            return None

    async def process(item: Item, worker: Worker) -> Visited:
        give = partial(asked, item, worker)
        return labelled(item, key, await (give() if pure else once("label", item, stage.name, give)))

    return process


def labelled(item: Item, key: str, label: object) -> Item:
    """The item as it came, with its label among the outputs."""
    return Item(item.value, item.state.add_output(key, label), item.frame, item.missing)


@dataclass(frozen=True)
class SwitchStage(Composite):
    """Sends each item to the body of the label that stands in its outputs."""

    cases: tuple[tuple[str, Stage], ...]
    default: Stage | None = None
    on_error: OnError | None = None

    def bodies(self) -> Mapping[str, Body]:
        bodies = {label: Body(stage) for label, stage in self.cases}
        if self.default is not None:
            bodies[_DEFAULT] = Body(self.default)
        return bodies

    @property
    def thins(self) -> bool:
        return True

    def multiplicity(self, of: Callable[[Stage], int], left: Callable[[Stage], int]) -> int:
        """An item is in one body only."""
        return 1 + max((of(body.stage) for body in self.bodies().values()), default=0)

    def failing(self) -> OnError | None:
        return self.on_error

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        if not self.cases:
            return (Problem(self.name, "cases", "has no case", "give at least one label with its stages"),)
        if self.default is not None and any(label == _DEFAULT for label, _ in self.cases):
            return (Problem(self.name, "cases", "a case and the default are both named 'default'", "rename the case"),)
        return ()

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        label = item.state.outputs[f"{self.name}_label"]
        if not any(label == known for known, _ in self.cases):
            if self.default is None:
                known = ", ".join(repr(label) for label, _ in self.cases)
                raise ItemError(
                    f"label {label!r} has no case and there is no default; cases: {known}", type="UnknownLabel"
                )
            label = _DEFAULT
        group = Group(run.joiner, item)
        sends = [(str(label), member(item, group.add(str(label))))]
        group.finish_adding()
        await run.send(group, sends)


def route(
    cases: Mapping[str, object],
    /,
    *misplaced: Never,
    by: Callable[..., object] | Expression | str | AgentStage | Agent,
    default: object | None = None,
    name: str = "route",
    on_error: RouteOnError | None = None,
) -> RouteStage:
    """Send each item to one of `cases`: `route({"code": coder, "prose": writer}, by=agent("triage", ...))`.

    `by` is a function of the payload (one parameter more gives the visit) that returns a label, an expression such as
    `"{{ input.kind }}"`, or an agent, which is asked for one of the labels. An unknown label goes to `default`; without
    one it fails the item. So does a `by` that fails, unless `on_error="default"`. Labels are text; an answer `True` is
    the label `true`, 1 is `1`.

    An agent is what `agent(…)` gives, an object with `name` and `process(prompt, state)`, or a named function whose
    second parameter is called `state`. Any other function of two parameters is given the payload and the visit.
    """
    if misplaced or not isinstance(cases, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        text = "begins with its cases, a mapping from label to stages, and takes its name as name="
        raise DefinitionError(Problem(None, "route", text, 'route({"code": …, "prose": …}, by=…, name="kind")'))
    found = [
        Problem(name, "cases", f"the label {label!r} is not text", f"write {str(label_of(label))!r}")
        for label in cast("Mapping[object, object]", cases)
        if not isinstance(label, str)
    ]
    if on_error == "default" and default is None:
        found.append(Problem(name, "on_error", "is 'default', but there is no default", "add default="))
    if found:
        raise DefinitionError(*found)
    otherwise = None if default is None else as_stage(default)
    return RouteStage(name, _chooser(name, by), as_bodies(cases), otherwise, on_error)


def _chooser(name: str, by: object) -> By:
    """Read what `by` may be. Raises `DefinitionError`."""
    if isinstance(by, AgentStage | Expression):
        return by
    if isinstance(by, str):
        return read_decision(by)
    if is_agent(by) and (not inspect.isfunction(by) or _second_parameter(by) == "state"):
        return stage_of_agent(by)
    if not callable(by):
        text = f"must be a function, an agent or an expression, got {by!r:.60}"
        raise DefinitionError(Problem(name, "by", text, 'by="{{ input.kind }}", or a function of the payload'))
    return by


def _second_parameter(function: Callable[..., object]) -> str | None:
    return next(islice(inspect.signature(function).parameters, 1, None), None)


def _from_file(name: str, *, cases: Mapping[str, object], by: By, **values: object) -> RouteStage:
    return route(cases, by=by, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "route",
    {
        "by": Field("by", required=True, help="an expression, an agent, or {call: …}"),
        "cases": Field("bodies", required=True, help="label to list of stages"),
        "default": Field("body", help="stages for any other label"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail", "default"), help="when `by` fails"),
    },
    _from_file,
    "chooses one of several bodies for each item",
    outputs=("label",),
)
