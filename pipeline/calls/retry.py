"""The one place where a failed attempt becomes another attempt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import anyio

from pipeline.calls.allowance import Allowance
from pipeline.calls.call import Call, CallIdentity, Reply, Request, Tries
from pipeline.calls.errors import CallError
from pipeline.calls.retry_budget import draws

EXCUSED: Final = 8  #: attempts of one call that do not count, because their endpoint was down; the next ones do


@dataclass(frozen=True, slots=True)
class Retry:
    """Tries again what may succeed, after a wait that grows and is spread.

    The wait before attempt n+1 is drawn from nothing to `wait_initial * 2**(n-1)`, at most `wait_max` seconds (full
    jitter: clients that failed together do not come back together). It is drawn from the call's identity, so two runs
    wait alike. What the server asked for is waited first. A call ends when its attempts are used, when the server asks
    for more than `wait_max`, or when the wait would outlive the item. What may have been paid already is tried
    `ambiguous` times more, no matter how many attempts are left. The stage's slot is given back during the wait.

    `budget` is shared by all calls of an endpoint; when it is used up a call ends with its first failure. Attempts that
    found their endpoint down, and surely cost nothing, are excused: the breaker makes the call wait, and this one asks
    again when it may. With `attempts` 1 nothing is: a call is one request.
    """

    attempts: int = 4
    wait_initial: float = 0.5
    wait_max: float = 60.0
    ambiguous: int = 1
    budget: Allowance | None = None

    def __call__(self, call: Call, /) -> Call:
        async def retried(request: Request) -> Reply:
            tries = request.tries or Tries()
            rounds = doubtful = excused = 0
            if self.budget is not None:
                self.budget.earn()
            while True:
                attempt = replace(request, attempt=tries.next(), tries=tries)
                try:
                    reply = await call(attempt)
                except CallError as error:
                    if error.excused and error.fault == "retry" and self.attempts > 1 and excused < EXCUSED:
                        excused += 1
                        continue
                    rounds += 1
                    if error.fault == "ambiguous":
                        doubtful += 1
                        tries.doubtful += 1
                    wait = self.wait_before_next(error, attempt, rounds, doubtful, anyio.current_time())
                else:
                    return replace(reply, attempts=tries.made)
                async with request.visit.without_slot():
                    await anyio.sleep(wait)

        return retried

    def wait_before_next(self, error: CallError, request: Request, attempt: int, doubtful: int, now: float) -> float:
        """Return the seconds to wait after `attempt` failed with `error`; raise it when there is no next attempt."""
        made = attempt if request.tries is None else request.tries.made
        if error.fault not in ("retry", "ambiguous"):
            raise error.after(made)
        if attempt >= self.attempts or doubtful > self.ambiguous:
            raise error.after(made)
        asked = error.retry_after or 0.0
        if asked > self.wait_max:
            error.fault, error.parks = "park", True
            raise error.after(made, f"the server asks to wait {asked:g} s, more than {self.wait_max:g} s")
        wait = asked + self.backoff(request.identity, attempt)
        deadline = request.visit.deadline
        if deadline is not None and now + wait >= deadline:
            raise error.after(made, f"another one after {wait:.1f} s would come too late for the item")
        if self.budget is not None and draws(error) and not self.budget.take():
            raise error.after(made, "no other, because too many calls at this endpoint fail")
        return wait

    def backoff(self, identity: CallIdentity, attempt: int) -> float:
        """Return the seconds drawn for the wait after `attempt` of the call `identity`."""
        share = int.from_bytes(identity.digest("wait", attempt)[:8], "big") / 2**64
        ceiling = self.wait_initial * 2 ** min(attempt - 1, 40)
        return min(self.wait_max, ceiling) * share
