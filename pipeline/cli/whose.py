"""Which run has made an output that is there already."""

from __future__ import annotations

import os
from itertools import islice
from typing import Final

from pipeline.cli.exits import members
from pipeline.cli.following import next_command
from pipeline.cli.given import absolute
from pipeline.cli.past import newest_first
from pipeline.cli.store import usual
from pipeline.core.errors import JournalError, SinkError, WriteError

LOOKED: Final = 50  #: runs that are looked into, the last ones


def whose(output: str, error: BaseException, but: str | None) -> str | None:
    """If `error` refuses `output` because it is there, and a run in the store that has not ended has it: how one goes
    on with that. `but` is the run that was refused."""
    refused = any(isinstance(each, SinkError) and not isinstance(each, WriteError) for each in members(error))
    if not refused or not os.path.isfile(output):
        return None
    try:
        for found in islice(newest_first(usual()), LOOKED):
            left = found.run != but and found.state in ("stopped", "unfinished")
            if left and found.given.get("output") == absolute(output):
                command = next_command(found.run, piped=found.waits_for_pipe)
                return f"{output}: is the output of run {found.run}, which has work left; go on with it: {command}"
    except JournalError:
        pass
    return None
