"""What is said when a run begins and ends: what runs and its bound, what failed, and the counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import floor, log10
from typing import Final

from pipeline.cli.exits import OK, REFUSED, SOME_FAILED
from pipeline.cli.place import place_of
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.statistics import Statistics
from pipeline.core.usage import Usage

#: different reasons that are counted apart
_MOST_REASONS = 20
_MOST_LISTED = 6
_MOST_EXAMPLES = 5

UNREAD: Final = "the rest of the input was not read"

#: what the flags of answers mean, of one and of many, the gravest first
_OF_ANSWERS: Final[Mapping[str, tuple[str, str]]] = {
    "truncated": ("was cut at its token limit", "were cut at their token limit"),
    "refused": ("was a refusal", "were refusals"),
    "fallback": ("came from a fallback model", "came from a fallback model"),
    "model_differs": ("came from another model than was asked", "came from another model than was asked"),
    "usage_odd": ("had a token count that cannot be right", "had token counts that cannot be right"),
    "usage_missing": ("had no token count", "had no token counts"),
    "cached": ("came from the cache", "came from the cache"),
    "hedged": ("had a second attempt beside the first", "had a second attempt beside the first"),
}


def opening(name: str, pipeline: Pipeline, output: str) -> str:
    """The first line: what runs, where the records go, and the most that can be alive."""
    place = "" if output == "-" else f" → {output}"
    return f"{name}{place}: {pipeline}"


class Failures:
    """Counts what failed by reason, and what partial records lack; keeps the first message of each reason."""

    def __init__(self) -> None:
        self._reasons: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._missing: Counter[str] = Counter()

    def hear(self, record: Record) -> str | None:
        """Count `record` if it failed or lacks something; return what is to be said of it then."""
        if record.status == "partial":
            return self._partial(record)
        error = record.error
        if record.status != "failed" or error is None:
            return None
        where = f" ({error.stage})" if error.stage else ""
        reason = f"{error.type}{where}"
        said = f"{record.id}: {reason}: {error.message}"
        self._first.setdefault(_count(self._reasons, reason), said)
        place = place_of(error.cause)
        return f"{said} [{place}]" if place else said

    def lines(self) -> list[str]:
        """The counts by reason with the first message of each, and the counts of what is missing."""
        lines = [f"failed: {_listed(self._reasons, 'reasons')}"] if self._reasons else []
        lines += [f"first: {self._first[reason][:400]}" for reason, _ in self._reasons.most_common(_MOST_EXAMPLES)]
        return [*lines, f"missing: {_listed(self._missing, 'branches')}"] if self._missing else lines

    def _partial(self, record: Record) -> str:
        for branch in record.missing:
            _count(self._missing, branch)
        why = record.error.message if record.error else f"without {', '.join(record.missing)}"
        return f"{record.id}: partial: {why}"


def _count(counts: Counter[str], name: str) -> str:
    """Count `name`, or `other` when too many are counted already; return which."""
    counted = name if name in counts or len(counts) < _MOST_REASONS else "other"
    counts[counted] += 1
    return counted


def _listed(counts: Counter[str], what: str) -> str:
    listed = ", ".join(f"{number:,} {name}" for name, number in counts.most_common(_MOST_LISTED))
    more = len(counts) - _MOST_LISTED
    return f"{listed}, and {more} more {what}" if more > 0 else listed


def remarked(now: Statistics) -> list[str]:
    """What is to be said of answers and tools, in one line; none if there is nothing."""
    left = dict(now.remarks)
    failed, unkept = left.pop("tool_failed", 0), left.pop("not_kept", 0)
    said: list[str] = []
    for flag in (*(flag for flag in _OF_ANSWERS if flag in left), *(flag for flag in left if flag not in _OF_ANSWERS)):
        one, many = _OF_ANSWERS.get(flag, (f"is {flag}", f"are {flag}"))
        answers = "" if said else " answer" if left[flag] == 1 else " answers"
        said.append(f"{left[flag]:,}{answers} {one if left[flag] == 1 else many}")
    if failed:
        said.append(f"{failed:,} {'call' if failed == 1 else 'calls'} of tools failed")
    if unkept:
        results = "1 result is" if unkept == 1 else f"{unkept:,} results are"
        said.append(f"{results} no plain JSON, so a resume would ask for {'it' if unkept == 1 else 'them'} again")
    return [f"note: {'; '.join(said)}"] if said else []


def abandoned(now: Statistics) -> list[str]:
    """The blocking calls that nobody waits for any more and that have not returned, a line a stage."""
    return [
        f"abandoned: {stage.running} blocking {'call' if stage.running == 1 else 'calls'} of {stage.stage!r}"
        for stage in now.blocking
        if stage.running
    ]


def dropped(now: Statistics) -> list[str]:
    """What taps did not keep up with, and what their functions raised, a line a tap."""
    lines: list[str] = []
    for tap in now.taps:
        if tap.dropped:
            lines.append(f"dropped: {tap.dropped:,} of {tap.seen:,} that passed tap {tap.name!r}")
        if tap.failed:
            lines.append(f"tap {tap.name!r}: its function raised {tap.failed:,} times, last {tap.error}")
    return lines


def paid(now: Statistics) -> list[str]:
    """What is spent of each budget, a line each."""
    return [f"budget: {purse}" for purse in now.budgets]


def closing(
    verb: str, now: Statistics, seconds: float, *, kept: bool = False, earlier: Mapping[str, int] | None = None
) -> str:
    """The last line: counts, time, tokens and money. Of a run that is kept, what was cut short is only unfinished; of
    one that was gone on with, the counts of the whole of it too."""
    words = {"cancelled": "unfinished"} if kept else {}

    def counted(counts: Iterable[tuple[str, int]]) -> str:
        return ", ".join(f"{count:,} {words.get(status, status)}" for status, count in counts if count)

    parts = [counted(now.window.settled.items()) or "0 records", f"{seconds:.1f} s"]
    if now.usage.requests:
        parts += [_tokens(now.usage), _money(now)]
    if earlier:
        whole = [(status, count + earlier.get(status, 0)) for status, count in now.window.settled.items()]
        parts.append(f"whole run: {counted(whole)}")
    return f"{verb}: {' · '.join(parts)}"


def verdict(now: Statistics, earlier: Mapping[str, int] | None = None) -> int:
    """The exit code of a run that came to its end, with what it had settled before it was gone on with."""
    return settled_code(Counter(now.window.settled) + Counter(earlier or {}))


def settled_code(counts: Mapping[str, int]) -> int:
    """The exit code for roots that settled so."""
    settled = Counter(counts)
    if not settled["failed"]:
        return OK
    return REFUSED if settled["failed"] == settled.total() else SOME_FAILED


def _tokens(usage: Usage) -> str:
    about = "about " if usage.estimated else ""
    requests = "request" if usage.requests == 1 else "requests"
    tokens = "token" if usage.input_tokens == 1 else "tokens"
    return f"{usage.requests:,} {requests}, {about}{usage.input_tokens:,} {tokens} in, {usage.output_tokens:,} out"


def _money(now: Statistics) -> str:
    if now.unpriced and now.known_usd:
        requests = "request has" if now.unpriced == 1 else "requests have"
        return f"at least {_usd(now.known_usd)} ({now.unpriced:,} {requests} no known price)"
    if now.cost is None or now.cost.usd is None:
        return "cost unknown"
    source = "at given prices" if now.cost.source == "given" else f"({now.cost.source})"
    return f"{_usd(now.cost.usd)} {source}"


def _usd(amount: float) -> str:
    """With four digits after the point below a dollar, and as many as it takes to be more than nothing."""
    return f"${amount:.{max(4, -floor(log10(amount)))}f}" if 0 < amount < 1 else f"${amount:,.2f}"
