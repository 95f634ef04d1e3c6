"""Runs of the past as text and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from pipeline.cli.following import next_command
from pipeline.cli.past import Past
from pipeline.core.budget import dollars
from pipeline.core.codec import encode
from pipeline.core.visible import visible
from pipeline.durability.inspection.overview import Details, Overview, Spending

_HEADS = ("run", "begun", "state", "done", "failed", "cost", "what")
_ENDS = {
    "ok": "answered",
    "failed": "failed",
    "refused": "refused",
    "ambiguous": "of unknown end",
    "unsent": "not sent",
}


def table(found: Sequence[Past]) -> list[str]:
    """A line a run, under a line of heads."""
    rows = [_HEADS, *(tuple(map(_plain, _row(each))) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def page(found: Past, more: Details) -> list[str]:
    """All of one run, a line a fact."""
    seen = found.seen
    assert seen is not None
    lines = [
        ("run", found.run),
        ("what", found.what),
        ("state", _state(found)),
        ("begun", f"{_local(found.begun)} in {found.here}"),
        ("command", _line(found)),
        ("kept in", str(found.directory)),
        ("survives", "loss of power" if seen.about.get("durability") == "power" else "the end of its process"),
        ("records", _records(seen)),
        *(
            ("partly", f"{seen.begun:,} of the open ones, with {_many(seen.answers, 'answer')}")
            for _ in range(bool(seen.begun))
        ),
        ("attempts", ", ".join(f"{n:,} {_ends(state, seen)}" for state, n in seen.attempts.items()) or "none"),
        *(("model", _spent(each)) for each in more.spending),
        ("cost", _cost(seen.usd, seen.unpriced)),
        *(("failed", f"{count:,} {reason}") for reason, count in more.reasons.items()),
        *(("event", f"{_local(at)} {what} {value}") for at, what, value in more.changes),
        ("begun", f"{_many(more.epochs, 'time')}, counting those that went on with it"),
    ]
    command = _command(found)
    if command is not None:
        lines.append(("go on", command))
    width = max(len(name) for name, _ in lines)
    return [f"{name.ljust(width)}  {_plain(text)}" for name, text in lines]


def as_json(found: Sequence[Past]) -> str:
    """One list of objects."""
    return visible(encode([_object(each) for each in found]).decode())


def page_json(found: Past, more: Details) -> str:
    """One object."""
    said = {
        **_object(found),
        "attempts": dict(found.seen.attempts) if found.seen else {},
        "models": {
            each.model: {
                "attempts": each.attempts,
                "input_tokens": each.input_tokens,
                "output_tokens": each.output_tokens,
                "usd": each.usd,
                "unpriced": each.unpriced,
            }
            for each in more.spending
        },
        "reasons": dict(more.reasons),
        "epochs": more.epochs,
        "events": [{"at": at, "what": what, "value": value} for at, what, value in more.changes],
        "command": found.given.get("line", []),
    }
    return visible(encode(said).decode())


def _plain(text: str) -> str:
    """One line that a terminal shows as it is: whoever made a journal may have written anything into it."""
    return visible(text).replace("\n", "\\n").encode("utf-8", "backslashreplace").decode()


def _object(found: Past) -> Mapping[str, object]:
    seen = found.seen
    said = {
        "run": found.run,
        "state": found.state,
        "begun": found.begun,
        "what": found.what,
        "directory": found.here,
        "path": str(found.directory),
        "code": found.code,
    }
    if seen is None:
        return {**said, "damage": found.damage}
    counts = {"admitted": seen.admitted, "open": seen.open, "settled": dict(seen.settled), "untaken": seen.untaken}
    cost = {"usd": seen.usd, "unpriced": seen.unpriced}
    return {**said, **counts, "cost": cost, "resume": _command(found)}


def _row(found: Past) -> tuple[str, ...]:
    seen = found.seen
    if seen is None:
        return (found.run, "", found.state, "", "", "", found.damage)
    done = f"{seen.done:,}/{seen.admitted:,}"
    return (
        found.run,
        _local(found.begun),
        found.state,
        done,
        f"{seen.failed:,}" if seen.failed else "",
        _cost(seen.usd, seen.unpriced),
        found.what,
    )


def _state(found: Past) -> str:
    return found.state if found.code is None else f"{found.state}, ended with {found.code}"


def _records(seen: Overview) -> str:
    settled = ", ".join(f"{count:,} {status}" for status, count in seen.settled.items())
    untaken = f"; {seen.untaken:,} not written yet" if seen.untaken else ""
    return f"{seen.admitted:,} admitted, {seen.open:,} open" + (f"; {settled}" if settled else "") + untaken


def _command(found: Past) -> str | None:
    """How to go on with it; None if there is nothing to go on with, or somebody does."""
    if found.state not in ("stopped", "unfinished"):
        failed = found.state == "finished" and found.seen is not None and found.seen.failed
        return next_command(found.run, only_failed=True) if failed else None
    return next_command(found.run, piped=found.waits_for_pipe)


def _line(found: Past) -> str:
    line = found.given.get("line")
    words = [str(word) for word in cast("list[object]", line)] if isinstance(line, list) else []
    return shlex.join(["penstock", *words])


def _ends(state: str, seen: Overview) -> str:
    if state == "started":
        return "in flight" if seen.running else "in flight when it was killed"
    return _ENDS.get(state, state)


def _spent(each: Spending) -> str:
    tokens = f"{each.input_tokens:,} tokens in, {each.output_tokens:,} out"
    return f"{each.model}: {_many(each.attempts, 'attempt')}, {tokens}, {_cost(each.usd, each.unpriced)}"


def _cost(usd: float, unpriced: int) -> str:
    if not unpriced:
        return dollars(usd)
    return f"at least {dollars(usd)}" if usd else "unknown"


def _many(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _local(at: str) -> str:
    """A time as the clock on the wall has it."""
    try:
        return datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return at
