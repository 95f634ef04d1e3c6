"""How an answer goes over the wire: its bytes in pieces, when each is sent, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

#: whole: to its end. never: nothing more comes, and the connection stays. dropped: the connection is broken.
Ending: TypeAlias = Literal["whole", "never", "dropped"]

DRIP: Final = 1.0  #: seconds from each byte to the next of an answer that trickles

#: the part of the latency after which a stream begins; the rest is spread over its pieces
FIRST_PIECE: Final = 0.2

JSON: Final[Mapping[str, str]] = {"content-type": "application/json"}
_STREAM: Final[Mapping[str, str]] = {"content-type": "text/event-stream", "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent for one request. Without a status not even the head of an answer is sent."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pieces: tuple[bytes, ...] = ()
    length: int | None = None  #: bytes that the head promises; None: as many as come
    latency: float = 0.0  #: seconds before the head
    pause: float = 0.0  #: seconds between pieces
    ending: Ending = "whole"

    @property
    def at_once(self) -> bool:
        """Whether all of it is sent together."""
        return self.ending == "whole" and len(self.pieces) <= 1

    @property
    def streamed(self) -> bool:
        """Whether it is read while it comes."""
        return self.headers.get("content-type") == _STREAM["content-type"]


def plain(document: object, latency: float, status: int = 200, headers: Mapping[str, str] = JSON) -> Answer:
    """Return an answer that is sent at once."""
    body = document if isinstance(document, bytes) else encoded(document)
    return Answer(status=status, headers=headers, pieces=(body,), length=len(body), latency=latency)


def encoded(document: object) -> bytes:
    """Return JSON as UTF-8; half a character, which a client may have sent as an escape, is a question mark."""
    return json.dumps(document, ensure_ascii=False).encode(errors="replace")


def streamed(events: tuple[bytes, ...], latency: float) -> Answer:
    """Return an answer whose pieces come one by one, the last when `latency` is over."""
    begin = latency * FIRST_PIECE
    pause = (latency - begin) / (len(events) - 1) if len(events) > 1 else 0.0
    return Answer(status=200, headers=_STREAM, pieces=events, latency=begin, pause=pause)


def failed(status: int, code: str, message: str, param: str | None = None, latency: float = 0.0) -> Answer:
    """Return an error in the form of the OpenAI API."""
    error = {"message": message, "type": code, "param": param, "code": code}
    answer = plain({"error": error}, latency, status)
    redirected = {"location": "/elsewhere"} if 300 <= status < 400 else {}
    return replace(answer, headers={**answer.headers, **redirected})


def broken(answer: Answer, fault: str | None) -> Answer:
    """Return `answer` with the fault in it, if it is one of the wire."""
    match fault:
        case "bad_json":
            return _bad_json(answer)
        case "truncated_stream":
            half = _half(answer)
            return replace(answer, pieces=half, length=None if answer.length is None else sum(map(len, half)))
        case "disconnect_mid":
            return replace(answer, pieces=_half(answer), ending="dropped")
        case "stall":
            return replace(answer, pieces=_half(answer), ending="never")
        case "slow_drip":
            body = b"".join(answer.pieces)
            trickle = tuple(body[index : index + 1] for index in range(len(body)))
            return replace(answer, pieces=trickle, pause=DRIP)
        case _:
            return answer


def _half(answer: Answer) -> tuple[bytes, ...]:
    """Return the first half of the pieces; of what is sent at once, the first half of the bytes."""
    if len(answer.pieces) > 1:
        return answer.pieces[: len(answer.pieces) // 2]
    return tuple(piece[: len(piece) // 2] for piece in answer.pieces)


def _bad_json(answer: Answer) -> Answer:
    """Cut the end off the document, or off the JSON of a piece in the middle of a stream."""
    if len(answer.pieces) == 1:
        cut = answer.pieces[0][:-9]
        return replace(answer, pieces=(cut,), length=len(cut))
    middle = len(answer.pieces) // 2
    spoiled = answer.pieces[middle].rstrip()[:-9] + b"\n\n"
    return replace(answer, pieces=(*answer.pieces[:middle], spoiled, *answer.pieces[middle + 1 :]))
