"""How far a run is, in one line: live on a terminal, every ten seconds elsewhere.

The line is made from a snapshot of the run, so nothing is counted twice and nothing is counted while nobody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from anyio import current_time, sleep

from pipeline.core.statistics import Statistics

Progress: TypeAlias = Literal["auto", "rich", "plain", "none"]

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.25


def progress_line(now: Statistics, seconds: float) -> str:
    """One line for people: what has settled and how fast, what is in flight, which slots are taken, what holds it."""
    settled = sum(now.window.settled.values())
    counts = ", ".join(f"{count:,} {status}" for status, count in now.window.settled.items() if count) or "0 done"
    parts = [counts, f"{settled / seconds if seconds else 0.0:.1f}/s", f"{now.window.open:,} in flight"]
    busy = [f"{stage.name} {stage.slots.borrowed}/{stage.slots.total}" for stage in now.stages if stage.slots.borrowed]
    if busy:
        parts.append(", ".join(busy))
    held_by = now.held_by
    if held_by is not None:
        parts.append(f"{held_by.waiting:,} {'waits' if held_by.waiting == 1 else 'wait'} for {held_by.what}")
    of_budgets = [each for purse in now.budgets for each in purse.spent_of()]
    if of_budgets:
        parts.append(", ".join(of_budgets))
    elif now.cost is not None and now.cost.usd:
        parts.append(f"${now.cost.usd:.4f}" if now.cost.usd < 1 else f"${now.cost.usd:,.2f}")
    return " · ".join(parts)


async def plain_progress(look: Callable[[], Statistics | None], say: Callable[[str], None]) -> None:
    """Say one line every `PLAIN_SECONDS` until cancelled. `look` gives None while there is no run."""
    began = current_time()
    while True:
        await sleep(PLAIN_SECONDS)
        now = look()
        if now is not None:
            say(progress_line(now, current_time() - began))


async def live_progress(
    look: Callable[[], Statistics | None], take_over: Callable[[Callable[[str], None] | None], None]
) -> None:
    """Keep one line on stderr up to date until cancelled, then take it away.

    While it is shown, words have to go above it: `take_over` is given the function that puts them there, and None at
    the end.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    began = current_time()
    with Live(
        console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as live:
        take_over(lambda text: console.print(Text(text), soft_wrap=True))
        try:
            while True:
                now = look()
                if now is not None:
                    line = Text(progress_line(now, current_time() - began), no_wrap=True, overflow="ellipsis")
                    live.update(line, refresh=True)
                await sleep(LIVE_SECONDS)
        finally:
            take_over(None)
