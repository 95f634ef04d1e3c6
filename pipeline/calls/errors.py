"""Why a call failed, classed by what to do about it; and why a model cannot be opened."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from pipeline.core.errors import ItemError, PipelineError
from pipeline.core.usage import Cost, Usage

#: retry: nothing was paid, try again. ambiguous: it may have been paid, try again once. fail: this request will never
#: succeed. stop: no request of this run will. park: it will succeed, later than anybody waits here.
FaultClass: TypeAlias = Literal["retry", "ambiguous", "fail", "stop", "park"]


NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class ModelError(PipelineError):
    """A model cannot be opened; the text says what to set."""


class CallError(ItemError):
    """Why a call, or one attempt of it, failed."""

    def __init__(
        self,
        message: str,
        *,
        fault: FaultClass,
        type: str,
        http_status: int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
        cost: Cost | None = None,
        answer: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(
            message,
            type=type,
            retryable=fault in ("retry", "ambiguous", "park"),
            http_status=http_status,
            request_id=request_id,
        )
        self.fault: FaultClass = fault
        self.stops_run = fault == "stop"
        self.parks = fault == "park"
        self.retry_after = retry_after  #: seconds the server asked us to wait
        self.usage = usage or Usage(requests=1)  #: of the attempt that failed
        self.cost = cost
        self.excused = False  #: the endpoint was down for all; if nothing was paid, the attempt does not count
        self.headers = headers  #: of the answer that failed, lower-case names; what a quota learns from
        self.answer = answer  #: what the model said, when that is what was wrong

    def after(self, attempts: int, why_no_more: str | None = None) -> CallError:
        """Return this error as the end of the whole call: how many attempts were made, and why there is no other."""
        if attempts > 1 or why_no_more:
            said = f"after {attempts} attempt{'s' if attempts > 1 else ''}"
            self.message += f" ({said}{'; ' + why_no_more if why_no_more else ''})"
            self.args = (self.message,)
        self.attempts = attempts
        return self

    def stop_run(self, why: str) -> None:
        """Make this the error of every call to come."""
        self.fault, self.stops_run, self.parks, self.retryable = "stop", True, False, False
        self.message = f"{why}: {self.message}"
        self.args = (self.message,)
