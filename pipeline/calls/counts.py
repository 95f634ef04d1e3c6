"""How many tokens an attempt used: the server's count where it can be true, else an estimate that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pipeline.calls.strict_json import object_of
from pipeline.core.usage import Usage

if TYPE_CHECKING:
    from pipeline.calls.call import Request

MOST: Final = 2**53  #: more tokens than that nobody counts


def read_usage(counts: object) -> Usage | None:
    """Return the tokens of one request, or None unless both counts are whole numbers that can be true.

    Reads the names of chat completions and those of responses; what came from a cache stands in one of three places.
    """
    given = object_of(counts)
    kind = ("prompt", "completion") if "prompt_tokens" in given else ("input", "output")
    read, written = (_count(given.get(f"{side}_tokens")) for side in kind)
    if read is None or written is None:
        return None
    details = [object_of(given.get(f"{side}_tokens_details")) for side in kind]
    found = (details[0].get("cached_tokens"), given.get("prompt_cache_hit_tokens"), given.get("cached_tokens"))
    cached = next((count for each in found if (count := _count(each)) is not None), 0)
    reasoning = _count(details[1].get("reasoning_tokens")) or 0
    return Usage(read, written, min(cached, read), min(reasoning, written), requests=1)


def counted(usage: Usage | None, counts: object, request: Request, text: str) -> tuple[Usage, str | None]:
    """Return what an answer is charged for, and the flag it earns: `usage_missing`, `usage_odd`, or none.

    A count of more tokens than were asked for is not believed either.
    """
    most = request.parameters.max_output_tokens
    if usage is not None and (most is None or usage.output_tokens <= most):
        return usage, None
    guess = estimate(request, text)
    return guess, "usage_missing" if counts is None or counts == {} else "usage_odd"


def estimate(request: Request, text: str) -> Usage:
    """Four characters are about a token; said to be an estimate wherever it goes."""
    asked = sum(len(each.content) + sum(len(call.arguments) for call in each.tool_calls) for each in request.messages)
    written = -(-len(text) // 4)
    most = request.parameters.max_output_tokens
    return Usage(-(-asked // 4), written if most is None else min(written, most), requests=1, estimated=True)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None
