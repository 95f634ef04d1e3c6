"""`penstock resume`: go on with a run that was kept."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipeline.cli.flags import choice, flag, several
from pipeline.cli.operational import (
    BACKEND,
    PROGRESS,
    BackendName,
    BudgetOf,
    Concurrency,
    Deadline,
    Grace,
    ItemTimeout,
    JsonStatus,
    MaxFailures,
    MaxInFlight,
    ProgressStyle,
    Quiet,
    Rpm,
    StallTimeout,
    Tpm,
    Verbose,
    Watchdog,
)
from pipeline.cli.validate import AllowImport

EPILOG = """\b
  penstock resume                       the last unfinished run of this directory
  penstock resume 7k3p --failed         and what failed once more
  penstock resume 7k3p --only failed    that alone
  penstock resume 7k3p --from judge     all records once more, from the stage judge on
  … | penstock resume 7k3p -            with the same input piped in again
"""


def resume(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="An id, the beginning of one, or a directory.", show_default=False),
    ] = None,
    piped: Annotated[
        str | None,
        typer.Argument(metavar="-", help="The input that was piped is piped again.", show_default=False),
    ] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Records that failed too, with the answers they had.")
    ] = False,
    only: Annotated[Literal["failed"] | None, choice("--only", words=("failed",), help="Those alone.")] = None,
    from_stage: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="All records, from this stage on.", show_default=False)
    ] = None,
    accept_changes: Annotated[
        bool,
        flag("--accept-changes", help="Though the pipeline or the input has changed: what is still valid is kept."),
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Though the run may be somebody else's; what it would do is said without.")
    ] = False,
    allow_import: AllowImport = None,
    concurrency: Concurrency = None,
    item_timeout: ItemTimeout = None,
    watchdog: Watchdog = None,
    stall_timeout: StallTimeout = None,
    deadline: Deadline = None,
    max_failures: MaxFailures = None,
    budget: BudgetOf = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    max_in_flight: MaxInFlight = None,
    grace: Grace = None,
    backend: Annotated[BackendName | None, BACKEND] = None,
    progress: Annotated[ProgressStyle | None, PROGRESS] = None,
    json_status: JsonStatus = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Go on with a run."""
    from pipeline.cli.ending import ended
    from pipeline.cli.exits import UsageError
    from pipeline.cli.voice import Voice

    voice = Voice(quiet=quiet, verbose=verbose)

    def command() -> int:
        from pipeline.cli.keeping import Again
        from pipeline.cli.resuming import go_on

        if piped not in (None, "-"):
            raise UsageError(f"after the run only - can come, which is stdin; got {piped!r}")
        word, stdin = (None, True) if run == "-" else (run, piped is not None)
        operational: dict[str, object] = {
            "concurrency": concurrency,
            "item_timeout": item_timeout,
            "watchdog": watchdog,
            "stall_timeout": stall_timeout,
            "deadline": deadline,
            "max_failures": max_failures,
            "budget": budget,
            "rpm": rpm,
            "tpm": tpm,
            "max_in_flight": max_in_flight,
            "grace": grace,
            "backend": backend,
            "progress": progress,
        }
        again = Again(failed, only is not None, from_stage, accept_changes)
        return go_on(
            word,
            again,
            operational,
            voice,
            stdin=stdin,
            json_status=json_status,
            allow_import=several(allow_import, "--allow-import"),
            trust=trust,
        )

    ended(command, voice, "penstock resume --help")
