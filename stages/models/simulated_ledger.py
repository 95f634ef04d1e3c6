"""What a simulated server saw: counts, and from when to when."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Ledger:
    """Counts only grow but `in_flight`. Every request that was started ends as one of the four after it."""

    started: int = 0
    finished: int = 0  #: answered to the end, with whatever status
    cancelled: int = 0  #: given up by the client before the end of the answer
    dropped: int = 0  #: connections that a fault broke
    refused: int = 0  #: those of `finished` that were over a limit of the server
    in_flight: int = 0
    peak: int = 0  #: most requests in flight at one time
    admitted: int = 0  #: let in by the limits of the server
    first: float | None = None  #: when the first one that was let in came, on the clock of the event loop
    last: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    charged_tokens: int = 0  #: against the limit of tokens
    by_status: Counter[int] = field(default_factory=Counter[int])  #: of those that got a status

    def begin(self) -> None:
        self.started += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    def admit(self, charged: int, now: float) -> None:
        self.admitted += 1
        self.charged_tokens += charged
        self.first = now if self.first is None else self.first
        self.last = now

    @property
    def span(self) -> float:
        """Seconds between the first request that was let in and the last."""
        return 0.0 if self.first is None or self.last is None else self.last - self.first

    def document(self) -> dict[str, object]:
        """Return the ledger as JSON holds it; times are seconds since the first request that was let in."""
        names = ("started", "finished", "cancelled", "dropped", "refused", "in_flight", "peak", "admitted")
        tokens = ("input_tokens", "output_tokens", "charged_tokens")
        by_status = {str(status): count for status, count in sorted(self.by_status.items())}
        return {
            **{name: getattr(self, name) for name in names},
            "by_status": by_status,
            "span": self.span,
            **{name: getattr(self, name) for name in tokens},
        }
