"""What is said when a run begins and ends: what runs and its bound, what failed, and the counts."""

from __future__ import annotations

from collections import Counter

from pipeline.cli.exits import OK, REFUSED, SOME_FAILED
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.statistics import Statistics
from pipeline.core.usage import Cost, Usage

#: different reasons that are counted apart
_MOST_REASONS = 20


def opening(name: str, pipeline: Pipeline, output: str) -> str:
    """The first line: what runs, where the records go, and the most that can be alive."""
    place = "" if output == "-" else f" → {output}"
    return f"{name}{place}: {pipeline}"


class Failures:
    """Counts the failed records by reason, and keeps the first message."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first: str | None = None

    def hear(self, record: Record) -> str | None:
        """Count `record` if it failed; return what is to be said of it then."""
        error = record.error
        if record.status != "failed" or error is None:
            return None
        where = f" ({error.stage})" if error.stage else ""
        reason = f"{error.type}{where}"
        known = reason in self._reasons or len(self._reasons) < _MOST_REASONS
        self._reasons[reason if known else "other"] += 1
        said = f"{record.id}: {reason}: {error.message}"
        if self._first is None:
            self._first = said
        return said

    def lines(self) -> list[str]:
        """The counts by reason, and the first failure."""
        if self._first is None:
            return []
        counts = ", ".join(f"{number:,} {reason}" for reason, number in self._reasons.most_common(6))
        more = len(self._reasons) - 6
        return [f"failed: {counts}{f', and {more} more reasons' if more > 0 else ''}", f"first: {self._first[:400]}"]


def closing(verb: str, now: Statistics, seconds: float) -> str:
    """The last line: counts, time, tokens and money."""
    settled = [f"{count:,} {status}" for status, count in now.window.settled.items() if count]
    parts = [", ".join(settled) or "0 records", f"{seconds:.1f} s"]
    if now.usage.requests:
        parts += [_tokens(now.usage), _money(now.cost)]
    return f"{verb}: {' · '.join(parts)}"


def verdict(now: Statistics) -> int:
    """The exit code of a run that came to its end."""
    settled = now.window.settled
    if not settled["failed"]:
        return OK
    return REFUSED if settled["failed"] == sum(settled.values()) else SOME_FAILED


def _tokens(usage: Usage) -> str:
    about = "about " if usage.estimated else ""
    requests = "request" if usage.requests == 1 else "requests"
    return f"{usage.requests:,} {requests}, {about}{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out"


def _money(cost: Cost | None) -> str:
    if cost is None or cost.usd is None:
        return "cost unknown"
    amount = f"${cost.usd:.4f}" if 0 < cost.usd < 1 else f"${cost.usd:,.2f}"
    return f"{amount} ({cost.source})"
