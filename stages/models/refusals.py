"""The words and the class of everything that is not an answer: a status, a broken connection, a transport's no.

The key is named by its variable and never shown; servers quote it in their own words, so those are cleaned of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

from pipeline.calls.errors import CallError
from pipeline.calls.faults import Fault, fault_of_cause, fault_of_status
from pipeline.calls.rate_headers import rates_announced
from pipeline.calls.retry_after import retry_after
from pipeline.calls.secrets import Secrets
from pipeline.calls.server_errors import read_error, whole_text

REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True)
class Refusals:
    """Makes the errors of one open model."""

    model: str
    host: str
    variable: str | None
    key: str | None = field(repr=False)
    secrets: Secrets = field(default_factory=Secrets)

    def of_status(self, status: int, headers: Mapping[str, str], body: bytes, waited: float) -> CallError:
        """Class an answer that is not a 200. `headers` have lower-case names, `waited` is seconds until it came."""
        said = read_error(body)
        fault = fault_of_status(
            status, code=said.code, error_type=said.type, message=said.message, headers=headers, waited=waited
        )
        return CallError(
            f"{self.model}: HTTP {status}, {self._words(fault, said.message)}",
            fault=fault.fault,
            type=fault.type,
            http_status=status,
            request_id=self.request_id(headers),
            retry_after=_wait(status, headers),
            headers=headers,
        )

    def of_cause(self, error: BaseException) -> CallError:
        """Class an error of the connection, or of the transport."""
        fault = fault_of_cause(error)
        refused = _system_error(error) if fault.type == "connection" else None
        if refused is not None:
            said = f"no connection to {self.host}: {refused}; is it running, and is base_url right?"
            return CallError(f"{self.model}: {said}", fault=fault.fault, type=fault.type)
        why = self.secrets.line(f"{type(error).__name__}: {_reason(error)}")
        said = f"its certificate is not trusted: {why}" if fault.type == "tls" else why
        return CallError(f"{self.model}: {self.host}: {said}", fault=fault.fault, type=fault.type)

    def complete(self, error: CallError, headers: Mapping[str, str]) -> None:
        """Put the model's name and the request's id into an error of the envelope."""
        if not error.message.startswith(f"{self.model}: "):
            error.message = f"{self.model}: {self.secrets.line(error.message, limit=500)}"
            error.args = (error.message,)
        if error.answer is not None:
            error.answer = self.secrets.clean(error.answer)
        if error.fault == "retry" and error.retry_after is None:  # an error inside a 200 has its headers around it
            error.retry_after = _wait(error.http_status or 200, headers)
        error.request_id = self.request_id(headers)
        error.headers = headers

    def request_id(self, headers: Mapping[str, str]) -> str | None:
        """The server's name of a request, for its operator; without whatever else it may hold."""
        given = headers.get(REQUEST_ID)
        return None if given is None else self.secrets.clean(given)[:200]

    def _words(self, fault: Fault, message: str) -> str:
        said = self.secrets.line(whole_text(message))
        match fault.type:
            case "key_refused" if self.key:
                words = f"the key in {self.variable} was refused"
            case "key_refused":
                words = f"it wants a key, set {self.variable or 'api_key_env'}"
            case "no_money" if self.variable:
                words = f"the account of the key in {self.variable} has no credit or quota left"
            case "no_money":
                words = "the account has no credit or quota left"
            case "redirected":
                return "the server redirects, and redirects are not followed; give the final base_url"
            case _:
                return said or "no reason given"
        return f"{words}: {said}" if said else words


def _wait(status: int, headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait; of a refused rate, until what is used up is whole again, unless it
    says a time itself."""
    now = datetime.now(UTC)
    asked = retry_after(headers, now)
    if asked is not None or status != 429:
        return asked
    spent = [each for each in rates_announced(headers, now).values() if not each.remaining]
    return max((each.reset for each in spent if each.reset), default=None)


def _system_error(error: BaseException) -> str | None:
    """Return what the system said of a connection that could not be made, wherever in the chain of causes it stands."""
    waiting: list[BaseException | None] = [error]
    for _ in range(20):
        here = waiting.pop(0) if waiting else None
        if here is None:
            continue
        if isinstance(here, OSError) and here.errno:
            return (os.strerror(here.errno) if here.errno > 0 else str(here.strerror)).lower()
        if isinstance(here, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", here).exceptions
        waiting += [here.__cause__, here.__context__]
    return None


def _reason(error: BaseException) -> str:
    """Return the first words along the chain of causes; the outer classes often have none."""
    here: BaseException | None = error
    for _ in range(10):
        if here is None or str(here):
            break
        here = here.__cause__ or here.__context__
    return str(here) if here is not None else "no reason given"
