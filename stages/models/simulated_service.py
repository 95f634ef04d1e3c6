"""One simulated server, whatever brings it its requests: from the bytes of a request to an answer and how it is sent.

Nothing here waits. Chance is drawn from the seed and the call's identity; without one, from the body of the request
and how often that body was let in before.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Final, cast

from stages.models.distribution import Distribution
from stages.models.simulated_answer import Said, said
from stages.models.simulated_asked import Asked, BadRequest, read_chat, read_responses
from stages.models.simulated_chat import chunks, completion
from stages.models.simulated_faults import Faults, refusal_of
from stages.models.simulated_gate import Gate, Refused, retry_headers
from stages.models.simulated_ledger import Ledger
from stages.models.simulated_responses import events, response
from stages.models.simulated_wire import Answer, broken, failed, plain, streamed

if TYPE_CHECKING:
    from stages.models.simulated import SimulatedModel

REMEMBERED: Final = 65_536  #: bodies whose occurrences are counted; who has not come for longest is forgotten


@dataclass(slots=True, eq=False)
class Exchange:
    """One request and its answer. Whoever sends it says once how it ended; what is said later is not heard."""

    server: SimulatedServer
    answer: Answer
    admitted: bool
    _over: bool = False

    def finish(self) -> None:
        """The answer was sent to its end."""
        if self._end():
            self.server.ledger.finished += 1

    def cancel(self) -> bool:
        """The client has left before. Says whether that is news."""
        if not self._end():
            return False
        self.server.ledger.cancelled += 1
        return True

    def drop(self) -> None:
        """The connection was broken, as the answer says."""
        if self._end():
            self.server.ledger.dropped += 1

    def _end(self) -> bool:
        if self._over:
            return False
        self._over = True
        self.server.ledger.in_flight -= 1
        if self.admitted:
            self.server.gate.leave()
        return True


@dataclass(frozen=True, slots=True)
class _Planned:
    """An answer before the limits have been asked, and the tokens of it."""

    answer: Answer
    read: int
    written: int
    charge: int


@dataclass(slots=True, eq=False)
class SimulatedServer:
    """What can change: the ledger, the gate, and how often each body came."""

    definition: SimulatedModel
    gate: Gate
    ledger: Ledger = field(default_factory=Ledger)
    _seen: OrderedDict[bytes, int] = field(default_factory=OrderedDict[bytes, int])
    _faults: Faults = field(init=False)

    def __post_init__(self) -> None:
        self._faults = self.definition.faults()

    def receive(self, path: str, body: bytes, identity: str, now: float) -> Exchange:
        """Take a request. `identity` is what its client calls it, empty if it does not say."""
        self.ledger.begin()
        responses = path.rstrip("/").endswith("/responses")
        try:
            document = _document(body)
            asked = read_responses(document) if responses else read_chat(document)
            digest = b"" if identity else hashlib.sha256(body).digest()
            planned = self._plan(asked, responses, self._chance(identity, digest))
        except BadRequest as error:
            return self._exchange(failed(400, "invalid_request_error", str(error), error.param), admitted=False)
        refused = self.gate.enter(planned.charge, now)
        if refused is not None:
            self.ledger.refused += 1
            return self._exchange(self._refusal(refused, now), admitted=False)
        if digest:
            self._count(digest)
        self.ledger.admit(planned.charge, now)
        self.ledger.input_tokens += planned.read
        self.ledger.output_tokens += planned.written
        headers = {**planned.answer.headers, **self.gate.headers(now)}
        return self._exchange(replace(planned.answer, headers=headers), admitted=True)

    def _exchange(self, answer: Answer, *, admitted: bool) -> Exchange:
        if answer.status is not None:
            self.ledger.by_status[answer.status] += 1
        return Exchange(self, answer, admitted)

    def _refusal(self, refused: Refused, now: float) -> Answer:
        answer = failed(429, "rate_limit_exceeded", refused.message)
        return replace(answer, headers={**answer.headers, **self.gate.headers(now), **retry_headers(refused.wait)})

    def _plan(self, asked: Asked, responses: bool, chance: Random) -> _Planned:
        definition = self.definition
        fault = self._faults.drawn(asked.prompt, chance)
        latency = cast("Distribution", definition.latency).draw(chance)
        if silent := _without_words(fault, latency):
            read = max(1, -(-asked.characters // 4))
            return _Planned(silent, read, 0, read)
        tokens = cast("Distribution | None", definition.tokens)
        length = None if tokens is None else max(1, round(tokens.draw(chance)))
        words = _said(asked, fault, length, chance)
        used = words.read + words.written
        charge = max(used, asked.most_tokens or 0) if self.gate.limits.charge == "reserved" else used
        answer = broken(_written(words, asked, responses, fault, latency), fault)
        return _Planned(answer, words.read, words.written, charge)

    def _chance(self, identity: str, digest: bytes) -> Random:
        drawn = identity.encode() or digest + str(self._seen.get(digest, 0)).encode()
        seeded = str(self.definition.seed).encode() + b"\x00" + drawn
        return Random(int.from_bytes(hashlib.sha256(seeded).digest()[:8], "big"))

    def _count(self, digest: bytes) -> None:
        self._seen[digest] = self._seen.get(digest, 0) + 1
        self._seen.move_to_end(digest)
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)


def _document(body: bytes) -> Mapping[str, object]:
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequest("the body is no JSON object")
    return cast("dict[str, object]", document)


def _said(asked: Asked, fault: str | None, length: int | None, chance: Random) -> Said:
    """Return what the model says. Raises `BadRequest` when what it was given to fit can be fitted by nothing."""
    try:
        return said(asked, fault, length, chance)
    except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
        if asked.schema is None and not asked.tools:
            raise  # a bug, and no schema of a client's
        raise BadRequest(f"the simulated model finds nothing that fits the schema: {error}") from None


def _without_words(fault: str | None, latency: float) -> Answer | None:
    """Return the answer of a fault for which the model says nothing."""
    match fault:
        case "timeout":
            return Answer(status=None, latency=latency, ending="never")
        case "disconnect":
            return Answer(status=None, latency=latency, ending="dropped")
        case "html":
            return plain(b"<!doctype html><p>simulated", latency, headers={"content-type": "text/html"})
        case str() if fault[0].isdecimal():
            return failed(*refusal_of(fault), latency=latency)
        case _:
            return None


def _written(words: Said, asked: Asked, responses: bool, fault: str | None, latency: float) -> Answer:
    if not asked.stream or fault == "plain_stream":
        return plain(response(words, fault) if responses else completion(words, fault), latency)
    pieces = events(words, fault) if responses else chunks(words, fault, asked.include_usage)
    return streamed(tuple(pieces), latency)
