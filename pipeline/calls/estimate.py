"""What a request will use, guessed before it is sent and learned from what others did use.

Input is its characters by four, put right by a ratio of sums (a mean of ratios would count short requests too much).
Output is the mean of the last answers of the stage. A guess that is off is put right when the request has settled.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple, TypeAlias

from pipeline.calls.call import Request
from pipeline.calls.rate_headers import Dimension
from pipeline.core.usage import Usage

#: How a provider counts tokens. used: what was used. uncached: so, less the input that it read from its cache. most:
#: the larger of the token limit and the estimate, given back to nobody.
TokenCharge: TypeAlias = Literal["used", "uncached", "most"]

CHARACTERS = 4  #: of a token, before anything was learned
OUTPUT = 500.0  #: tokens of an answer, before anything was learned
_PRIOR = 1000.0  #: tokens that the first guess of the ratio weighs
_SUMS = 2_000_000.0  #: tokens after which what was learned is halved, so that it follows
_KEPT = 200  #: answers of a stage that its guess is made from


class Charge(NamedTuple):
    """What one request takes from a quota."""

    input: float
    output: float

    def of(self, dimension: Dimension) -> float:
        match dimension:
            case "requests":
                return 1.0
            case "input_tokens":
                return self.input
            case "output_tokens":
                return self.output
            case "tokens":
                return self.input + self.output


class Guess(NamedTuple):
    """What is put aside for a request."""

    reserved: Charge
    characters: float  #: of its messages by four, which the ratio is learned from


class Estimates:
    """What was learned of one model. What can change: all of it."""

    def __init__(self, counts: TokenCharge = "used") -> None:
        self.counts: TokenCharge = counts
        self._guessed = self._used = _PRIOR
        self._answers: dict[str, _Answers] = {}

    def guess(self, request: Request) -> Guess:
        asked = sum(len(each.content) for each in request.messages) / CHARACTERS
        told = asked * self._used / self._guessed
        most = request.parameters.max_output_tokens
        answers = self._answers.get(request.visit.stage)
        output = answers.mean if answers else OUTPUT
        if most is not None:
            output = min(output, most)
            if self.counts == "most":
                output = max(output, most - told)
        return Guess(Charge(told, output), asked)

    def learn(self, stage: str, guess: Guess, usage: Usage) -> None:
        """Learn from an answer whose `usage` the server counted."""
        used = self.used(usage)
        self._guessed += guess.characters
        self._used += used.input
        if self._guessed > _SUMS:
            self._guessed, self._used = self._guessed / 2, self._used / 2
        if stage not in self._answers:
            self._answers[stage] = _Answers()
        self._answers[stage].add(used.output)

    def used(self, usage: Usage) -> Charge:
        """What the provider counts of `usage`; what cannot be counts as nothing."""
        cached = usage.cached_input_tokens if self.counts == "uncached" else 0
        return Charge(float(max(usage.input_tokens - cached, 0)), float(max(usage.output_tokens, 0)))

    def settled(self, guess: Guess, usage: Usage) -> Charge:
        """What the request took in the end."""
        used = self.used(usage)
        if self.counts != "most":
            return used
        reserved = guess.reserved
        return used if used.of("tokens") > reserved.of("tokens") else reserved


class _Answers:
    """The lengths of the last answers of one stage, in tokens. What can change: which."""

    __slots__ = ("_last", "_sum")

    def __init__(self) -> None:
        self._last: deque[float] = deque()
        self._sum = 0.0

    @property
    def mean(self) -> float:
        return self._sum / len(self._last)

    def add(self, tokens: float) -> None:
        if len(self._last) == _KEPT:
            self._sum -= self._last.popleft()
        self._last.append(tokens)
        self._sum += tokens
