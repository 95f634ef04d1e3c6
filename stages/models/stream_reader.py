"""Reads one streamed answer to its end, tells each piece of text, and makes of the whole what a plain answer makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import anyio
import httpx2

from pipeline.calls.call import Reply, Request
from pipeline.calls.envelope import read_body
from pipeline.calls.errors import CallError
from pipeline.calls.secrets import Secrets, Veil
from pipeline.calls.sse import Decoder, SentEvent
from pipeline.calls.streamed import Pieces
from pipeline.core.events import TextStreamed
from stages.models.refusals import Refusals
from stages.models.replies import Replies
from stages.models.streaming import is_stream
from stages.models.transport import MAX_ANSWER, TransportRefusal
from stages.models.wires import Wire

#: seconds that a server may take to end its stream after it said that the answer is whole; a connection that ends
#: by itself can be used again
GRACE: Final = 0.5

_FIELDS: Final = (b"data:", b"event:", b"id:", b": ")


@dataclass(frozen=True, slots=True)
class StreamReader:
    """Reads the stream of one request."""

    wire: Wire
    replies: Replies
    refusals: Refusals

    async def read(self, response: httpx2.Response, headers: Mapping[str, str], request: Request) -> Reply:
        """Return the reply, and close the response whatever happens. `headers` are the response's, in lower case.

        Raises `CallError`.
        """
        pieces, told = self.wire.pieces(), Told(request, self.refusals.secrets)
        try:
            rest = await self._fed(response, pieces, told)
            document = read_body(rest) if isinstance(rest, bytes) else pieces.whole(rest)
            answer = self.wire.read(document, request)
            if isinstance(rest, bytes):
                told.piece(answer.text)
            told.end()
        except CallError as error:
            self.replies.failed(error, headers)
            if pieces.begun:
                self.replies.broken(error, request, pieces)
            raise
        finally:
            await response.aclose()
        return self.replies.of(answer, request, headers)

    async def _fed(self, response: httpx2.Response, pieces: Pieces, told: Told) -> bytes | str | None:
        """Feed a stream to `pieces` and return the half event at its end; return the body of what is no stream."""
        decoder = Decoder(MAX_ANSWER)
        if not is_stream(response.status_code, response.headers):
            body = await response.aread()
            if not body.lstrip().startswith(_FIELDS):  # some servers do not say that it is one
                return body
            _take(decoder.feed(body), pieces, told)
            return None if pieces.over else decoder.end()
        failure: CallError | None = None
        # Leaving the loop early would leave the generators below it half read; cancelled, they unwind from the inside.
        with anyio.CancelScope() as scope:
            try:
                async for part in cast("httpx2.AsyncByteStream", response.stream):
                    if failure is not None or pieces.over:
                        continue
                    try:
                        _take(decoder.feed(part), pieces, told)
                    except CallError as error:
                        failure = error
                        scope.cancel()
                    if pieces.over:
                        scope.deadline = anyio.current_time() + GRACE
            except (httpx2.RequestError, TransportRefusal) as error:
                if failure is None and not pieces.over:
                    raise self.refusals.of_cause(error) from None
        if failure is not None:
            raise failure
        return None if pieces.over else decoder.end()


class Told:
    """What is told of an answer while it comes, without the secrets that a server may quote in it."""

    __slots__ = ("_request", "_veil")

    def __init__(self, request: Request, secrets: Secrets) -> None:
        self._request = request
        self._veil = Veil(secrets) if request.visit.listening else None

    def piece(self, text: str) -> None:
        if self._veil is not None and text:
            self._tell(self._veil.through(text))

    def end(self) -> None:
        if self._veil is not None:
            self._tell(self._veil.rest())

    def _tell(self, text: str) -> None:
        if text:
            request, who = self._request, self._request.identity
            request.visit.emit(TextStreamed(who.item_id, who.path, who.ordinal, request.attempt, text))


def _take(events: Iterable[SentEvent], pieces: Pieces, told: Told) -> None:
    for event in events:
        told.piece(pieces.take(event))
