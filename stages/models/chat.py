"""Asks a chat-completions endpoint once: the innermost call, which makes a reply or a `CallError` of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from pipeline.calls.call import Reply, Request
from pipeline.calls.envelope import Answer, read_answer, read_body
from pipeline.calls.errors import CallError
from pipeline.core.usage import Cost, Usage
from stages.models.body import chat_body
from stages.models.refusals import REQUEST_ID, Refusals

if TYPE_CHECKING:
    import httpx2
    import openai

    from stages.models.openai import OpenAIModel


@dataclass(frozen=True, slots=True)
class ChatProvider:
    """Asks once: the innermost call, which turns answers into replies and everything else into `CallError`."""

    definition: OpenAIModel
    client: openai.AsyncOpenAI = field(repr=False)
    refusals: Refusals
    price_of: Callable[[Usage], Cost]
    headers_of: Callable[[Request], Mapping[str, str]]

    async def ask(self, request: Request) -> Reply:
        import httpx2
        import openai

        from stages.models.transport import TransportRefusal

        body = chat_body(request, self.definition.model, self.definition.token_field, self.definition.schema_mode)
        headers, started = self.headers_of(request), anyio.current_time()
        try:
            response = await self.client.post(
                "/chat/completions", body=body, cast_to=httpx2.Response, options={"headers": dict(headers)}
            )
        except openai.APIStatusError as error:
            raise self._refused(error.response, anyio.current_time() - started) from None
        except openai.APIConnectionError as error:
            raise self.refusals.of_cause(error.__cause__ or error) from None
        except TransportRefusal as error:
            raise self.refusals.of_cause(error) from None
        if response.status_code != 200:
            raise self._refused(response, anyio.current_time() - started)
        return self._reply(response, request)

    def _reply(self, response: httpx2.Response, request: Request) -> Reply:
        try:
            answer = read_answer(read_body(response.content))
        except CallError as error:
            error.cost = self.price_of(error.usage) if error.usage.output_tokens else None
            self.refusals.complete(error, headers_of_response(response))
            raise
        usage = answer.usage or _estimate(request, answer)
        return Reply(
            text=answer.text,
            usage=usage,
            cost=self.price_of(usage),
            finish_reason=answer.finish_reason,
            model=answer.model,
            request_id=response.headers.get(REQUEST_ID),
            headers=headers_of_response(response),
        )

    def _refused(self, response: httpx2.Response, waited: float) -> CallError:
        return self.refusals.of_status(response.status_code, headers_of_response(response), response.content, waited)


def headers_of_response(response: httpx2.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _estimate(request: Request, answer: Answer) -> Usage:
    """Four characters are about a token; said to be an estimate wherever it goes."""
    asked = sum(len(each.content) for each in request.messages)
    return Usage(-(-asked // 4), -(-len(answer.text) // 4), requests=1, estimated=True)
