"""An answer that must fit a schema is validated, and sent back once with what is wrong with it."""

from __future__ import annotations

from dataclasses import replace

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.schema import SchemaError
from pipeline.core.state import Message

REPAIRS = 1


def structured(call: Call, repairs: int = REPAIRS) -> Call:
    """Return a call whose answer has `parsed` when the request has a schema; without one it is `call` itself.

    An answer that does not fit goes back to the model with the error, `repairs` times; each is a call of its own, with
    its own ordinal and its own attempts. Raises `CallError` of type `schema` when the last answer does not fit either,
    `truncated` or `refused` when there is no whole answer to repair.
    """

    async def fitting(request: Request) -> Reply:
        schema = request.schema
        if schema is None:
            return await call(request)
        attempts = 0
        for left in range(repairs, -1, -1):
            reply = await call(request)
            attempts += reply.attempts
            if reply.tool_calls:  # the answer comes later, when the tools have been called
                return replace(reply, attempts=attempts)
            _whole(reply)
            try:
                return replace(reply, parsed=schema.validate(reply.text), attempts=attempts)
            except SchemaError as error:
                if not left:
                    message = f"the answer does not fit its schema: {error}"
                    wrong = CallError(message, fault="fail", type="schema", answer=reply.text)
                    wrong.request_id = reply.request_id
                    raise wrong.after(attempts) from error
                request = _repair(request, reply.text, error)
        raise AssertionError("the last round returns or raises")

    return fitting


def _repair(request: Request, answer: str, error: SchemaError) -> Request:
    """Return the request that shows the model its own answer and what was wrong with it."""
    complaint = f"That answer cannot be used: {error}\nAnswer again with one JSON value that fits, and nothing else."
    return replace(
        request,
        messages=(*request.messages, Message("assistant", answer), Message("user", complaint)),
        identity=replace(request.identity, ordinal=request.visit.next_ordinal()),
        tries=None,  # those of the call before, with what that has used
    )


def _whole(reply: Reply) -> None:
    """Refuse an answer that another round would not mend."""
    if reply.finish_reason == "length":
        message = "the answer was cut at the token limit before its JSON ended; raise max_output_tokens"
        raise CallError(message, fault="fail", type="truncated", answer=reply.text).after(reply.attempts)
    if reply.finish_reason == "refusal":
        message = "the model refused to answer"
        raise CallError(message, fault="fail", type="refused", answer=reply.text).after(reply.attempts)
