"""Flags that say how a run goes about it, not what comes of it: `run` has them, and `resume` takes new ones."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from pipeline.cli import flags
from pipeline.cli.flags import choice, flag
from pipeline.core.budget import Budget

ProgressStyle = Literal["auto", "rich", "plain", "none"]
BackendName = Literal["asyncio", "trio"]

Concurrency: TypeAlias = Annotated[
    int | None,
    flag(
        "--concurrency",
        "-j",
        metavar="N",
        parser=flags.a_positive_count,
        help="Calls in flight of each agent that does not say (16).",
    ),
]
ItemTimeout: TypeAlias = Annotated[
    float | None,
    flag(
        "--item-timeout",
        metavar="DURATION",
        parser=flags.a_positive_duration,
        help="A record that takes longer fails (30m; none).",
    ),
]
Watchdog: TypeAlias = Annotated[
    float | None,
    flag(
        "--watchdog",
        metavar="DURATION",
        parser=flags.a_positive_duration,
        help="A stage that keeps the event loop so long is named (250ms; none).",
    ),
]
StallTimeout: TypeAlias = Annotated[
    float | None,
    flag(
        "--stall-timeout",
        metavar="DURATION",
        parser=flags.a_positive_duration,
        help="Without progress for so long, it is said what holds the run (5m; none).",
    ),
]
Deadline: TypeAlias = Annotated[
    float | None,
    flag(
        "--deadline",
        metavar="DURATION",
        parser=flags.a_positive_duration,
        help="After so long no call is begun, and the run ends with 3.",
    ),
]
MaxFailures: TypeAlias = Annotated[
    float | None,
    flag(
        "--max-failures",
        metavar="N|SHARE",
        parser=flags.a_count_or_share,
        help="More failed records end the run: 10, or 5%.",
    ),
]
BudgetOf: TypeAlias = Annotated[
    Budget | None,
    flag(
        "--budget",
        metavar="5usd|2Mtok|10kreq",
        parser=flags.a_budget,
        help="The most that the run may spend; then it stops.",
    ),
]
Rpm: TypeAlias = Annotated[
    int | None,
    flag(
        "--rpm",
        metavar="N",
        parser=flags.a_positive_count,
        help="Requests a minute of each model, over what the file says.",
    ),
]
Tpm: TypeAlias = Annotated[
    int | None,
    flag("--tpm", metavar="N", parser=flags.a_positive_count, help="Tokens a minute of each model, as 200k."),
]
MaxInFlight: TypeAlias = Annotated[
    int | None,
    flag(
        "--max-in-flight", metavar="N", parser=flags.a_positive_count, help="Records admitted and not finished (256)."
    ),
]
Grace: TypeAlias = Annotated[
    float | None,
    flag(
        "--grace",
        metavar="DURATION",
        parser=flags.a_duration,
        help="After a signal, time for what is in flight (no limit after Ctrl-C, else 25s; not kept: 30s).",
    ),
]

BACKEND: Final = choice("--backend", words=get_args(BackendName), help="The event loop.")
PROGRESS: Final = choice("--progress", words=get_args(ProgressStyle), help="A live line, a line every 10 s, or none.")

JsonStatus: TypeAlias = Annotated[
    bool, flag("--json-status", help="The last line of stderr is JSON: run, state, code, counts, cost, resume command.")
]
Quiet: TypeAlias = Annotated[bool, flag("--quiet", "-q", help="Errors only on stderr.")]
Verbose: TypeAlias = Annotated[bool, flag("--verbose", "-v", help="Each failure as it happens.")]
