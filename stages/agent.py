"""The agent that asks a model: a role, a prompt template, and optionally a schema that the answer must fit.

With tools, the model may ask for calls of them before it answers. It is an `Agent` like any other, so orchestration
does not know that there is a model behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast, get_args

from pipeline.calls.call import Judgement
from pipeline.calls.parameters import PARAMETERS, Parameters
from pipeline.calls.schema import Schema, SchemaLike
from pipeline.core.agent import AGENT_CONCURRENCY, AgentStage, is_agent, stage_of_agent
from pipeline.core.budget import Budget, Payable
from pipeline.core.decisions import read_template
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.names import Fields, fields_of, suggestion
from pipeline.core.ports import OpenModel, Reply, Resource
from pipeline.core.stage import OnError
from pipeline.core.state import ConversationState, Message
from pipeline.core.templates import Template
from pipeline.core.words import Field, Word
from stages.models.presets import as_model
from stages.models.provider import PARAMETERS as PARAMETER_FIELDS
from stages.tool_rounds import MAX_HOPS, Rounds, ToolReply
from stages.tools import FunctionTool, ToolFunction, as_tools

if TYPE_CHECKING:
    from pipeline.core.stage import Template as Reads
    from pipeline.core.visit import Visit


@dataclass(frozen=True)
class ModelAgent:
    """Asks `model`: the system text, the conversation if it is wanted, then the prompt."""

    name: str
    model: Resource[OpenModel]
    system: Template | None = None
    schema: Schema | None = None
    conversation: bool = False
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
    tools: tuple[FunctionTool, ...] = field(default=(), kw_only=True)
    max_hops: int = field(default=MAX_HOPS, kw_only=True)
    stream: bool = field(default=False, kw_only=True)  #: tell listeners of the answer as it comes
    on_truncated: Judgement = field(default="accept", kw_only=True)
    on_refused: Judgement = field(default="accept", kw_only=True)

    def resources(self) -> tuple[Resource[object], ...]:
        return (self.model,)

    def templates(self) -> Mapping[str, Reads]:
        return {"system": self.system} if self.system is not None else {}

    def against_budget(self, budget: Budget) -> Sequence[Problem]:
        """Satisfies `pipeline.core.budget.Payer`."""
        model: object = self.model
        return model.against_budget(budget, self.parameters) if isinstance(model, Payable) else ()

    @property
    def foreign(self) -> bool:
        """Whether it runs code that is not ours: that of its tools."""
        return bool(self.tools)

    def fields(self) -> Fields | None:
        """What is known of the answer's fields; a plain text has none."""
        return fields_of(self.schema.json_schema) if self.schema is not None else {}

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> Reply | ToolReply:
        """Answer `prompt`. An empty prompt continues the conversation that the record brought."""
        messages: list[Message] = []
        if self.system is not None:
            messages.append(Message("system", self.system.render(visit.names())))
        if self.conversation or not prompt:
            messages += state.messages
        elif visit.item.frame.root.record.messages and visit.item.value is visit.item.frame.root.record.value:
            messages += visit.item.frame.root.record.messages
        if prompt:
            messages.append(Message("user", prompt))
        options = self._options()

        async def ask(messages: Sequence[Message]) -> Reply:
            return await visit.call(self.model, messages, schema=self.schema, **options)

        if not self.tools:
            return await ask(messages)
        rounds = Rounds(self.name, {tool.name: tool for tool in self.tools}, self.max_hops)
        return await rounds.answer(visit, messages, ask)

    def _options(self) -> dict[str, object]:
        """What is said of each call; what is as always is left out."""
        options = dict(self.parameters)
        if self.tools:
            options["tools"] = tuple(tool.told for tool in self.tools)
        if self.stream:
            options["stream"] = True
        judgements = {"on_truncated": self.on_truncated, "on_refused": self.on_refused}
        return {**options, **{option: word for option, word in judgements.items() if word != "accept"}}


def agent(
    name: str | object,
    *,
    model: str | Resource[OpenModel] | None = None,
    prompt: str | Template | None = None,
    system: str | Template | None = None,
    output: SchemaLike | None = None,
    output_key: str | None = None,
    conversation: bool = False,
    tools: Iterable[ToolFunction] = (),
    max_hops: int | None = None,
    stream: bool = False,
    on_truncated: Judgement | None = None,
    on_refused: Judgement | None = None,
    concurrency: int = AGENT_CONCURRENCY,
    on_error: OnError | None = None,
    cpu: bool = False,
    timeout: float | None = None,
    pure: bool | None = None,
    **parameters: object,
) -> AgentStage:
    """An agent as a stage.

    `agent("draft", model="openai/gpt-5.5", prompt="Summarise: {{ prompt }}")` asks a model; further keywords are the
    model's parameters (temperature, max_output_tokens, stop, seed, reasoning, extra_body). `output` is a pydantic
    class, a JSON Schema or the short form: the answer is validated, and the error fed back once. `conversation` sends
    the messages so far before the prompt. `output_key` keeps the output under another name than the stage's.

    `tools` are functions that the model may ask to be called before it answers, and no other ones, see `tool`; it may
    do so `max_hops` (8) times in a row, after which the item fails. With `stream`, listeners of the run are told of the
    answer as it comes, as `TextStreamed`. `on_truncated` and `on_refused` say what becomes of an answer that was cut at
    its token limit, and of a refusal in words: "accept" (they are answers), or "fail".

    `agent(thing)` makes a stage of any object with `name` and `process(prompt, state)`, or of such a function. A
    blocking one runs in worker threads, or in worker processes if it computes (`cpu`), and a visit of it that takes
    longer than `timeout` seconds fails; see `map`. In a run with a journal its answers are kept; not if it is `pure`,
    which is for one that only computes, or whose calls of models, which are kept anyway, are all that it costs.
    """
    flags = {"conversation": conversation, "stream": stream, **({} if pure is None else {"pure": pure})}
    _check_flags(name if isinstance(name, str) else None, **flags)
    if not isinstance(name, str):
        judged = {"max_hops": max_hops, "on_truncated": on_truncated, "on_refused": on_refused}
        asked = {"tools": tools or None, "stream": stream or None, **judged}
        given = {"model": model, "system": system, "output": output, **asked, **parameters}
        _refuse_ignored(name, [option for option, value in given.items() if value is not None])
        return stage_of_agent(
            name,
            prompt=prompt,
            concurrency=concurrency,
            on_error=on_error,
            output_key=output_key,
            cpu=cpu,
            timeout=timeout,
            pure=bool(pure),
        )
    _refuse_own(name, cpu, timeout, pure)
    if model is None:
        raise DefinitionError(Problem(name, "model", "is missing", "give a model, as model='openai/gpt-5.5'"))
    _refuse_unknown(name, parameters)
    Parameters().updated(parameters)  # so that a wrong value is refused here, where it was written
    asks = ModelAgent(
        name,
        as_model(model),
        None if system is None else read_template(name, "system", system),
        Schema.of(output) if output is not None else None,
        conversation,
        {option: value for option, value in parameters.items() if value is not None},
        tools=as_tools(tools, name),
        max_hops=_hops(name, max_hops, tools),
        stream=stream,
        on_truncated=_judgement(name, "on_truncated", on_truncated),
        on_refused=_judgement(name, "on_refused", on_refused),
    )
    return stage_of_agent(
        asks, prompt=prompt, concurrency=concurrency, on_error=on_error, output_key=output_key, pure=True
    )


def _hops(name: str, max_hops: int | None, tools: Iterable[ToolFunction]) -> int:
    if max_hops is None:
        return MAX_HOPS
    if type(max_hops) is not int or max_hops < 1:
        raise DefinitionError(
            Problem(name, "max_hops", f"must be a whole number of at least 1, got {max_hops!r}", "the default is 8")
        )
    if not tools:
        raise DefinitionError(Problem(name, "max_hops", "is for agents with tools", "give tools, or leave it out"))
    return max_hops


def _judgement(name: str, option: str, given: Judgement | None) -> Judgement:
    if given is None:
        return "accept"
    if given not in get_args(Judgement):
        raise DefinitionError(Problem(name, option, f"must be 'accept' or 'fail', got {given!r}"))
    return given


def _check_flags(name: str | None, **flags: object) -> None:
    for option, value in flags.items():
        if not isinstance(value, bool):
            raise DefinitionError(Problem(name, option, f"is {value!r}", "give True or False"))


def _refuse_unknown(name: str, parameters: Mapping[str, object]) -> None:
    for option in parameters:
        if option not in PARAMETERS:
            known = (*WORD.fields, *PARAMETERS)
            hint = suggestion(option, known) or f"known: {', '.join(dict.fromkeys(known))}"
            raise DefinitionError(Problem(name, option, "is not an option of an agent", hint))


def _refuse_own(name: str, cpu: bool, timeout: float | None, pure: bool | None) -> None:
    """Refuse what is for agents that answer by themselves."""
    if pure is not None:
        text = "is for agents that answer by themselves; this one asks a model, whose answers are kept anyway"
        raise DefinitionError(Problem(name, "pure", text, "leave it out"))
    if cpu:
        raise DefinitionError(Problem(name, "cpu", "is for agents that compute; this one asks a model", "leave it out"))
    if timeout is not None:
        text = "is for agents that answer by themselves; this one asks a model, whose attempts have a time each"
        right = f"set it there, as resolve('provider/model', timeout={timeout!r}); item_timeout is for all attempts"
        raise DefinitionError(Problem(name, "timeout", text, right))


def _refuse_ignored(thing: object, ignored: list[str]) -> None:
    if not is_agent(thing):
        what = getattr(thing, "__name__", type(thing).__name__)
        raise DefinitionError(
            Problem(None, None, f"{what!r} is not an agent", "it needs a name and process(prompt, state)")
        )
    if ignored:
        name = getattr(thing, "name", None) or getattr(thing, "__name__", None)
        raise DefinitionError(
            Problem(str(name), ", ".join(ignored), "is for agents that ask a model; this one answers by itself")
        )


def _from_file(name: str, **values: object) -> AgentStage:
    parameters = {option: values.pop(option) for option in PARAMETERS if option in values}
    schema = cast("SchemaLike | None", values.pop("output", None))
    build = cast("type[AgentStage]", agent)
    return build(name, output=schema, **values, **parameters)  # pyright: ignore[reportCallIssue]


WORD = Word(
    "agent",
    {
        "model": Field("model", required=True, help="a name from models, or provider/model"),
        "prompt": Field("template", help="default: the previous stage's output, or the record's prompt"),
        "system": Field("template", help="the role"),
        "output": Field("schema", help="short form or JSON Schema; the answer is validated"),
        "output_key": Field("text", help="name of the output, if not the stage's"),
        "conversation": Field("flag", help="send the messages so far before the prompt"),
        "tools": Field("calls", help="functions that the model may call, as module:attribute, under --allow-import"),
        "max_hops": Field("count", help="times in a row that the model may ask for tools (8)"),
        "stream": Field("flag", help="tell listeners of the answer as it comes"),
        "on_truncated": Field("choice", choices=get_args(Judgement), help="an answer that was cut at its token limit"),
        "on_refused": Field("choice", choices=get_args(Judgement), help="a refusal in words"),
        "concurrency": Field("count", help="calls in flight of this stage"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="what a failed item becomes"),
        **PARAMETER_FIELDS,
    },
    _from_file,
    "asks a model in a role",
)
