"""Puts the policies around a provider's call in the one right order; `pipeline.calls` says why it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from pipeline.calls.account import Account
from pipeline.calls.call import Call, Policy
from pipeline.calls.deadline import Deadline
from pipeline.calls.retry import Retry
from pipeline.calls.structured import structured


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The policies around the attempts of one open model, outermost first; None leaves one out."""

    journal: Policy | None = None
    observe: Policy | None = None
    cache: Policy | None = None
    deadline: Policy | None = field(default_factory=Deadline)
    fallback: Policy | None = None
    detector: Policy | None = None
    retry: Policy | None = field(default_factory=Retry)
    hedge: Policy | None = None
    breaker: Policy | None = None
    budget: Policy | None = None
    limit: Policy | None = None
    quota: Policy | None = None
    connection: Policy | None = None
    account: Policy | None = field(default_factory=Account)
    sending: Policy | None = None
    timeout: Policy | None = None

    def around(self, attempt: Call) -> Call:
        """Return the call that a stage makes, around `attempt`, which asks the provider once."""
        return structured(wrapped(attempt, self._policies()))

    def instead(self, attempt: Call) -> Call:
        """Return the call that another model's stack makes in place of its own, inside what that has around it."""
        return wrapped(attempt, self._policies("fallback"))

    def _policies(self, outermost: str = "journal") -> Sequence[Policy]:
        names = [each.name for each in fields(self)]
        found: list[Policy | None] = [getattr(self, name) for name in names[names.index(outermost) :]]
        return [policy for policy in found if policy is not None]


def wrapped(call: Call, policies: Sequence[Policy]) -> Call:
    """Wrap `call` so that the first of `policies` is the outermost."""
    for policy in reversed(policies):
        call = policy(call)
    return call
