"""How many attempts of a model are in flight: the user's number, or as many as its server is found to take."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.gate import Gate
from pipeline.calls.turnstile import Turnstile


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """Holds a place in `gate` for the length of an attempt. Taken after the stage's slot, never while sleeping.

    Who is refused for coming too fast says so to `quota` where rates are known: they are what limits then, and the gate
    is open until the server is overloaded.
    """

    gate: Gate
    quota: Turnstile | None = None

    def __call__(self, call: Call, /) -> Call:
        gate = self.gate

        async def within_limit(request: Request) -> Reply:
            entry = await gate.enter(request)
            try:
                reply = await call(request)
                self._learn_rates()
                gate.answered(entry)
            except CallError as error:
                self._learn_rates()
                if self.is_refusal(error):
                    gate.refused(entry)
                raise
            finally:
                gate.leave(entry)
            return reply

        return within_limit

    def is_refusal(self, error: CallError) -> bool:
        """Whether a failure means that too many are in flight; what was not even sent does not."""
        if error.fault == "park":
            return False
        return error.type == "overloaded" or (error.type in ("rate_limited", "slow_down") and not self._rated)

    @property
    def _rated(self) -> bool:
        return self.quota is not None and self.quota.quota.announced

    def _learn_rates(self) -> None:
        if self._rated:
            self.gate.unbind()
