"""The most that a call can use, known before it is sent: by its bytes, and by the longest answer that it asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pipeline.calls.call import Request
from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import Tariff
from pipeline.core.budget import Budget
from pipeline.core.errors import ItemError, Problem

#: bytes that stand for the tokens between messages, which a server adds by itself
_AROUND_A_MESSAGE = 32
_AROUND_A_REQUEST = 256
_AROUND_TOOLS = 1024  #: some servers tell a model in words of their own how tools are called

_LIMITS_OF_OUTPUT = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Unbounded(ItemError):
    """Nobody can tell the most that a call costs, so it cannot be made under the run's budget."""

    stops_run = True


def unbounded(model: str, tariff: Tariff, budget: Budget, parameters: Parameters | None) -> list[Problem]:
    """Why the most that a call costs is not known, for what `budget` limits; parameters None: those are not known."""
    free = tariff.most(1, 1) == 0
    if budget.usd is not None and tariff.most(0, 0) is None:
        text = f"{model} has no known price, so a budget in dollars cannot hold"
        return [Problem(None, "model", text, "give it price: {input: 2.5, output: 10}, in dollars a million tokens")]
    counts = budget.tokens is not None or (budget.usd is not None and not free)
    if counts and parameters is not None and most_output(parameters) is None:
        text = f"{model} may answer at any length, so a budget cannot hold"
        return [Problem(None, "max_output_tokens", text, "give the agent or its model max_output_tokens: 1000")]
    return []


def most_input(request: Request) -> int:
    """More than the tokens that a request can be read as: no token is shorter than a byte."""
    said = [text for each in request.messages for text in (each.content, each.name or "", each.tool_call_id or "")]
    said += [part for each in request.messages for call in each.tool_calls for part in (call.id, call.name)]
    said += [call.arguments for each in request.messages for call in each.tool_calls]
    said += [part for tool in request.tools for part in (tool.name, tool.description, _json(tool.parameters))]
    if request.schema is not None:
        said.append(_json(request.schema.json_schema))
    if request.parameters.extra_body:
        said.append(_json(request.parameters.extra_body))
    parts = len(request.messages) + len(request.tools) + sum(len(each.tool_calls) for each in request.messages)
    around = _AROUND_A_REQUEST + _AROUND_A_MESSAGE * parts + (_AROUND_TOOLS if request.tools else 0)
    return around + sum(len(text.encode("utf-8", "surrogatepass")) for text in said)


def most_output(parameters: Parameters) -> int | None:
    """The most tokens of an answer, reasoning included; None when it may be of any length."""
    extra = parameters.extra_body
    given = [parameters.max_output_tokens, *(extra.get(name) for name in _LIMITS_OF_OUTPUT)]
    limits = [each for each in given if isinstance(each, int) and each > 0]
    answers = extra.get("n", 1)
    return max(limits) * (answers if isinstance(answers, int) and answers > 1 else 1) if limits else None


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
