"""How a simulated model fails: which share of attempts, or which prompts, and what the client then sees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

from pipeline.core.errors import DefinitionError, Problem

#: Faults with a name of their own; all others are HTTP statuses, with an error code of their own if one is written.
NAMED: Final[Mapping[str, str]] = {
    "timeout": "no answer, ever",
    "disconnect": "the connection is closed before the answer begins",
    "disconnect_mid": "the connection is closed in the middle of the answer",
    "stall": "half of the answer, and then nothing more",
    "slow_drip": "the answer trickles, a byte a second",
    "html": "a page in place of JSON",
    "bad_json": "JSON that is cut off",
    "truncated_stream": "an answer that ends in the middle as if it were whole",
    "plain_stream": "a plain answer to who asked for a stream",
    "null_choices": "choices: null",
    "empty_choices": "choices: []",
    "inner_error": "an error of an upstream server inside a 200",
    "missing_usage": "no count of tokens",
    "empty": "an answer without a word",
    "refusal": "the model refuses, in words",
    "filtered": "a content filter takes the answer away",
    "length": "the answer is cut at the token limit",
}

MESSAGES: Final[Mapping[int, tuple[str, str]]] = {
    400: ("invalid_request_error", "the simulated model does not take this request"),
    401: ("invalid_api_key", "the simulated model refuses the key"),
    402: ("insufficient_quota", "the simulated account has no credit left"),
    429: ("rate_limit_exceeded", "the simulated model is asked too often"),
    500: ("server_error", "the simulated model had an error"),
    503: ("overloaded", "the simulated model is overloaded"),
}

_STATUS = re.compile(r"([345][0-9]{2})(?::([A-Za-z0-9_.-]{1,64}))?")


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong: `shares` of attempts by fault, and prompts that contain a text."""

    shares: tuple[tuple[str, float], ...] = ()
    fail_when: str | None = None  #: prompts with this text are refused for good (400)
    hang_when: str | None = None  #: prompts with this text are never answered

    @classmethod
    def parse(cls, errors: Mapping[str, object], fail_when: str | None, hang_when: str | None) -> Faults:
        """Read shares as `{"429": "3%", "timeout": 0.01}`. Raises `DefinitionError`."""
        shares = tuple((_fault(str(name)), _share(str(name), share)) for name, share in errors.items())
        if sum(share for _, share in shares) > 1.0 + 1e-9:
            raise DefinitionError(Problem(None, "errors", "the shares are more than 100% together"))
        return cls(shares, fail_when, hang_when)

    def drawn(self, prompt: str, chance: Random) -> str | None:
        """Return the fault of one attempt, or None. Always takes one draw, so that answers do not depend on shares."""
        draw = chance.random()
        if self.hang_when and self.hang_when in prompt:
            return "timeout"
        if self.fail_when and self.fail_when in prompt:
            return "400"
        for fault, share in self.shares:
            draw -= share
            if draw < 0:
                return fault
        return None


def refusal_of(fault: str) -> tuple[int, str, str]:
    """Return the status, the error code and the words of a fault that is a status."""
    status, _, code = fault.partition(":")
    known, message = MESSAGES.get(int(status), ("simulated", f"a simulated error {status}"))
    return int(status), code or known, message


def _fault(name: str) -> str:
    if name in NAMED or _STATUS.fullmatch(name):
        return name
    known = f"a status 300-599, one with a code as 429:insufficient_quota, or {', '.join(NAMED)}"
    raise DefinitionError(Problem(None, "errors", f"{name!r} is no fault", known))


def _share(name: str, share: object) -> float:
    match share:
        case bool():
            value = None
        case int() | float():
            value = float(share)
        case str() if found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", share):
            value = float(found[1]) / 100
        case _:
            value = None
    if value is None or not 0.0 <= value <= 1.0:
        raise DefinitionError(Problem(None, f"errors.{name}", f"{share!r} is no share", "write 3% or 0.03"))
    return value
