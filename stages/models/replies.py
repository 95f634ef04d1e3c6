"""Makes the reply of an answer: what it is charged for, what is remarkable about it, and whether the stage takes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pipeline.calls.answer import Answer
from pipeline.calls.call import Reply, Request
from pipeline.calls.counts import counted, estimate, read_usage
from pipeline.calls.errors import CallError
from pipeline.calls.streamed import Pieces
from pipeline.core.state import ToolCall
from pipeline.core.usage import Cost, Usage
from stages.models.refusals import Refusals

if TYPE_CHECKING:
    from stages.models.openai import OpenAIModel


_VERSION: Final = re.compile(r"$|[-:@](\d|latest|preview)")


@dataclass(frozen=True, slots=True)
class Replies:
    """Makes the replies, and the errors in place of one, of one open model."""

    definition: OpenAIModel
    refusals: Refusals
    price_of: Callable[[Usage], Cost]

    def of(self, answer: Answer, request: Request, headers: Mapping[str, str]) -> Reply:
        """Return the reply. Raises `CallError` when the request says that such an answer is none."""
        usage, odd = counted(answer.usage, answer.counts, request, answer.text)
        cost = self.price_of(usage)
        cut, refused = answer.finish_reason == "length", answer.finish_reason == "refusal"
        if (cut and request.on_truncated == "fail") or (refused and request.on_refused == "fail"):
            raise self._not_taken(answer, usage, cost, headers)
        flags: tuple[str, ...] = ()
        if cut or refused or odd or self._differs(answer.model):
            flags = self._flags(answer, odd)
        clean = self.refusals.secrets.clean
        return Reply(
            text=clean(answer.text),
            usage=usage,
            cost=cost,
            finish_reason=answer.finish_reason,
            model=None if answer.model is None else clean(answer.model),
            request_id=self.refusals.request_id(headers),
            tool_calls=tuple(ToolCall(*map(clean, (each.id, each.name, each.arguments))) for each in answer.tool_calls),
            flags=flags,
            headers=headers,
        )

    def failed(self, error: CallError, headers: Mapping[str, str]) -> None:
        """Put the price of what was used into an error of the envelope, the model's name and the request's id."""
        error.cost = self.price_of(error.usage) if error.usage.output_tokens else None
        self.refusals.complete(error, headers)

    def broken(self, error: CallError, request: Request, pieces: Pieces) -> None:
        """Put into the error of a stream that the model had begun: its text so far was paid, as was the prompt.

        What is not counted is estimated. A fault that would have cost nothing may be tried again only as one that did.
        """
        if error.fault == "retry":
            error.fault = "ambiguous"
        if not error.usage.input_tokens:
            error.usage = read_usage(pieces.counts) or estimate(request, pieces.text)
        error.cost = self.price_of(error.usage)
        error.answer = self.refusals.secrets.clean(pieces.text) or None

    def _differs(self, given: str | None) -> bool:
        """Azure is asked for a deployment, whose name is its owner's to choose."""
        return self.definition.provider != "azure" and not same_model(self.definition.model, given)

    def _flags(self, answer: Answer, odd: str | None) -> tuple[str, ...]:
        found = {
            "truncated": answer.finish_reason == "length",
            "refused": answer.finish_reason == "refusal",
            odd or "": odd is not None,
            "model_differs": self._differs(answer.model),
        }
        return tuple(flag for flag, holds in found.items() if holds)

    def _not_taken(self, answer: Answer, usage: Usage, cost: Cost, headers: Mapping[str, str]) -> CallError:
        cut = answer.finish_reason == "length"
        said = (
            "the answer was cut at the token limit; raise max_output_tokens" if cut else "the model refused to answer"
        )
        kind = "truncated" if cut else "refused"
        error = CallError(
            said,
            fault="fail",
            type=kind,
            http_status=200,
            usage=usage,
            cost=cost,
            answer=self.refusals.secrets.clean(answer.text),
        )
        self.refusals.complete(error, headers)
        return error


def same_model(asked: str, given: str | None) -> bool:
    """Say whether a server answered with the model that was asked for; with a path before it, or as one version of it,
    it is the same: `openai/gpt-4o`, `gpt-4o-2024-08-06`, `qwen:latest`."""
    if given is None or given == asked:
        return True
    short, long = sorted((name.lower().rpartition("/")[2].removesuffix("-latest") for name in (asked, given)), key=len)
    return long.startswith(short) and _VERSION.match(long[len(short) :]) is not None
