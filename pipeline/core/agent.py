"""The one interface of agents, and the stage that any agent is.

    name: str
    async def process(self, prompt: str, state: ConversationState) -> str

A third parameter is the visit, whose `await visit.call(model, messages, **params)` is the full call stack. Functions of
that shape are agents too, and so are blocking ones, which run in worker threads, or, if they compute, in processes.
Orchestration knows agents by nothing else, so they can be put in sequence, in parallel or under a coordinator without
being touched.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

from pipeline.core.arity import accepts
from pipeline.core.codec import encode
from pipeline.core.decisions import read_template
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.item import Item
from pipeline.core.leaf import LeafStage, Process, Visited
from pipeline.core.mutation import watched
from pipeline.core.names import Fields
from pipeline.core.placing import Place, placing_problems, runner_of
from pipeline.core.ports import Reply, Resource
from pipeline.core.replay import charged_apart, keep, recalled
from pipeline.core.stage import OnError, Template
from pipeline.core.state import ConversationState, Message
from pipeline.core.templates import Template as PromptTemplate
from pipeline.core.threads import is_blocking
from pipeline.core.visit import Visit, template_names

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

#: the kind under which a journal has the answers of agents
KEPT = "value"

#: slots of an agent that does not say
AGENT_CONCURRENCY = 16


class Agent(Protocol):
    """Something that answers a prompt. `process` may be a coroutine function or a blocking one, and may take the visit
    as its third parameter; it returns text, a `Reply`, or any JSON-able value for structured output."""

    @property
    def name(self) -> str: ...

    def process(self, prompt: str, state: ConversationState, /) -> Awaitable[str] | str: ...


AgentFunction: TypeAlias = Callable[..., object]


@runtime_checkable
class HasResources(Protocol):
    """An agent that needs something opened for the run, such as its model."""

    def resources(self) -> tuple[Resource[object], ...]: ...


@runtime_checkable
class HasFields(Protocol):
    """An agent whose output has known fields."""

    def fields(self) -> Fields | None: ...


@runtime_checkable
class HasTemplates(Protocol):
    """An agent with templates of its own, such as a system text."""

    def templates(self) -> Mapping[str, Template]: ...


def is_agent(thing: object) -> bool:
    """Say whether `thing` has the shape of an agent: a name and `process(prompt, state)`, or such a function."""
    process = getattr(thing, "process", None)
    if isinstance(getattr(thing, "name", None), str) and callable(process):
        return accepts(process, 2)
    return inspect.isfunction(thing) and thing.__name__ != "<lambda>" and accepts(thing, 2)


def stage_of_agent(
    agent: object,
    *,
    prompt: str | PromptTemplate | None = None,
    concurrency: int = AGENT_CONCURRENCY,
    on_error: OnError | None = None,
    name: str | None = None,
    output_key: str | None = None,
    cpu: bool = False,
    timeout: float | None = None,
    pure: bool = False,
) -> AgentStage:
    """Make the stage of `agent`: an object of the `Agent` shape, or a function of that shape.

    A blocking one runs in worker threads, with `cpu` in worker processes, to which the agent itself travels by pickle.
    A visit that takes longer than `timeout` seconds fails as `VisitTimeout`; see `stages.map`. In a run with a journal
    its answers are kept, and what was used for them, unless it is `pure` or they are no plain JSON; then it is asked
    again in a resume.
    """
    if not is_agent(agent):
        what = getattr(agent, "__name__", type(agent).__name__)
        raise DefinitionError(
            Problem(name, None, f"{what!r} is not an agent", "an agent has a name and process(prompt, state)")
        )
    process = cast(AgentFunction, getattr(agent, "process", agent))
    own_name = getattr(agent, "name", None) if process is not agent else getattr(agent, "__name__", None)
    stage = name or str(own_name)
    template = None if prompt is None else read_template(stage, "prompt", prompt)
    return AgentStage(stage, concurrency, on_error, agent, template, output_key, cpu=cpu, timeout=timeout, pure=pure)


@dataclass(frozen=True)
class AgentStage(LeafStage):
    """An agent as a stage: its prompt is the rendered template, else the previous stage's output (text, or JSON if
    structured), else the record's prompt; its answer is the stage's output and joins the conversation."""

    concurrency: int = AGENT_CONCURRENCY
    on_error: OnError | None = None
    agent: object = None
    prompt: PromptTemplate | None = None
    output_key: str | None = None  #: None: the stage's name
    cpu: bool = field(default=False, kw_only=True)
    timeout: float | None = field(default=None, kw_only=True)
    pure: bool = field(default=False, kw_only=True)  #: its answers are not kept, because all they cost are calls

    @property
    def calls(self) -> bool:
        return True

    @property
    def place(self) -> Place:
        """Where the agent runs."""
        return "processes" if self.cpu else "threads" if is_blocking(self.process_function) else "loop"

    @property
    def foreign(self) -> bool:
        return bool(getattr(self.agent, "foreign", True))

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        placing = placing_problems(self.name, self.process_function, self.place, self.timeout, parameters=2)
        return (*super().problems(in_body=in_body), *placing)

    @property
    def process_function(self) -> AgentFunction:
        """The agent's `process`, or the function that it is."""
        return cast(AgentFunction, getattr(self.agent, "process", self.agent))

    def templates(self) -> Mapping[str, Template]:
        own: Mapping[str, Template] = self.agent.templates() if isinstance(self.agent, HasTemplates) else {}
        return {**own, "prompt": self.prompt} if self.prompt is not None else own

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.output_key or self.name: self.agent.fields() if isinstance(self.agent, HasFields) else None}

    def resources(self) -> tuple[Resource[object], ...]:
        return self.agent.resources() if isinstance(self.agent, HasResources) else ()

    def bind(self, scope: Scope) -> Process:
        function = self.process_function
        if not self.cpu:  # a process has copies anyway
            function = watched(function, self.name, scope.machine)
        with_visit = accepts(function, 3)
        if self.place != "loop" or self.timeout is not None:
            runner = runner_of(scope, self.name, self.place, self.concurrency, self.timeout)
            function = partial(runner.run, function)

        async def process(item: Item, worker: Worker) -> Visited:
            prompt = self.prompt_for(item)
            args = (prompt, item.state, Visit(worker, item)) if with_visit else (prompt, item.state)
            answer = function(*args)
            return self.answered(item, prompt, await answer if inspect.isawaitable(answer) else answer)

        async def process_once(item: Item, worker: Worker) -> Visited:
            page = item.frame.root.page
            prompt, visit = self.prompt_for(item), Visit(worker, item)
            path = (*item.frame.path(), self.name)
            if page is not None and (found := page.find(KEPT, path)) is not None:
                return self._go_on(item, prompt, Said.of_json(recalled(item.frame, page, found)))
            args = (prompt, item.state, visit) if with_visit else (prompt, item.state)
            with charged_apart(item.frame) as used:
                answer = function(*args)
                said = self._said(await answer if inspect.isawaitable(answer) else answer)
                if page is not None:
                    keep(page, KEPT, path, said.as_json(), used, visit.remark)
            return self._go_on(item, prompt, said)

        return process if self.pure or scope.machine.journal is None else process_once

    def prompt_for(self, item: Item) -> str:
        """The prompt that this agent is given for `item`."""
        if self.prompt is not None:
            return self.prompt.render(template_names(item))
        record = item.frame.root.record
        if item.value is not record.value:
            return item.value if isinstance(item.value, str) else encode(item.value).decode()
        if record.prompt is not None:
            return record.prompt
        if record.messages:
            return ""
        if not isinstance(item.value, Mapping):
            return item.value if isinstance(item.value, str) else encode(item.value).decode()
        raise ItemError(
            f"the record has no prompt; give stage {self.name!r} a prompt template, or the record a field `prompt`",
            type="NoPrompt",
        )

    def answered(self, item: Item, prompt: str, answer: object) -> Visited:
        """The item that goes on with `answer` as this stage's output, question and answer added to the conversation."""
        return self._go_on(item, prompt, self._said(answer))

    def _said(self, answer: object) -> Said:
        value, text = read_answer(answer)
        if value is None:
            raise ItemError(f"agent {self.name!r} returned None; it has to return text, a reply or a value")
        return Said(value, text, _between(answer))

    def _go_on(self, item: Item, prompt: str, said: Said) -> Item:
        question = (Message("user", prompt),) if prompt else ()
        state = item.state.add_messages((*question, *said.between, Message("assistant", said.text, self.name)))
        return Item(said.value, state.add_output(self.output_key or self.name, said.value), item.frame, item.missing)


class Said(NamedTuple):
    """What an agent has answered: its output, the text of its message, and what was said before that."""

    value: object
    text: str
    between: tuple[Message, ...]

    def as_json(self) -> list[object]:
        """What `of_json` reads."""
        return [self.value, self.text, [message.as_json() for message in self.between]]

    @classmethod
    def of_json(cls, written: object) -> Said:
        """Read what `as_json` gave."""
        value, text, between = cast("tuple[object, str, list[object]]", written)
        return cls(value, text, tuple(Message.of_json(each) for each in between))


def read_answer(answer: object) -> tuple[object, str]:
    """The output of an answer, and the text of its message."""
    if answer is None or isinstance(answer, str):
        return answer, answer or ""
    text = getattr(answer, "text", None)
    if isinstance(text, str):
        reply = cast(Reply, answer)
        return (text if reply.parsed is None else reply.parsed), text
    return answer, encode(answer).decode()


def _between(answer: object) -> tuple[Message, ...]:
    """What was said between the question and a reply that tells of it, as `between`: calls of tools, and results."""
    said = getattr(answer, "between", ()) if isinstance(getattr(answer, "text", None), str) else ()
    return cast("tuple[Message, ...]", said) if isinstance(said, tuple) else ()
