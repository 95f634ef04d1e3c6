"""When a model cannot answer, others are asked in its place, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.errors import CallError
from pipeline.core.events import ModelReplaced

#: failures for good that say something about the model or its server, and nothing about what was asked
_THEIRS: Final = frozenset({"not_found", "rate_limited", "slow_down", "overloaded", "server_error"})


class Substitute(Protocol):
    """An open model that can take over a request from another one."""

    async def take_over(self, request: Request) -> Reply:
        """Answer with its own parameters under those that were asked for, and its own retries, limits and prices."""
        ...


@dataclass(frozen=True, slots=True)
class Fallback:
    """Asks `models` in turn when the call could not be answered: no attempt is left, the endpoint is down, the item
    would be parked, its account is refused, or it does not know the model.

    What is wrong with the request itself is wrong for every model, and is not asked again. While one model is left
    whose account is in order the run goes on; when all fail the call fails as the first of them that does not stop it.
    """

    models: Sequence[Substitute]
    names: Sequence[str] = ()  #: of the model itself and of each of `models`, for people

    def __call__(self, call: Call, /) -> Call:
        async def substituted(request: Request) -> Reply:
            request = request if request.tries is not None else replace(request, tries=Tries())
            try:
                return await call(request)
            except CallError as error:
                if not _theirs(error):
                    raise
                failures = [error]
            for place, model in enumerate(self.models):
                self._tell(request, failures[-1], place)
                try:
                    reply = await model.take_over(request)
                except CallError as error:
                    failures.append(error)
                    if not _theirs(error):
                        break
                else:
                    flags = reply.flags if "fallback" in reply.flags else (*reply.flags, "fallback")
                    return replace(reply, flags=flags)
            raise _of_all(failures)

        return substituted

    def _tell(self, request: Request, error: CallError, place: int) -> None:
        """Say that the model at `place` of `names` is no longer asked; that an endpoint is down was said before."""
        if error.fault == "stop" and error.type != "connection" and self.names and request.visit.listening:
            model, by = self.names[place : place + 2]
            request.visit.emit(ModelReplaced(model, by, error.type, error.message))


def _theirs(error: CallError) -> bool:
    """Whether another model may make good what this one failed at."""
    return error.fault != "fail" or error.type in _THEIRS


def _of_all(failures: Sequence[CallError]) -> CallError:
    """The failure of a call that no model answered; it stops the run only if each of them would."""
    chosen = next((each for each in failures if each.fault != "stop"), failures[0])
    others = [each for each in failures if each is not chosen]
    chosen.message += "".join(f"; and {each.message}" for each in others)
    chosen.args = (chosen.message,)
    chosen.attempts = failures[-1].attempts
    return chosen
