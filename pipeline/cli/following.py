"""The command that goes on with a run, as one would type it."""

from __future__ import annotations


def next_command(run: str, *, piped: bool = False, only_failed: bool = False) -> str:
    """Return it. `run` is the id of the run or its quoted directory; `piped`: its input came from a pipe and has not
    ended, so it has to be piped again; `only_failed`: nothing is left but what failed."""
    command = f"penstock resume {run}"
    if only_failed:
        return f"{command} --only failed"
    return f"… | {command} -" if piped else command
