"""Where in the user's code an exception was raised: its last frame that is neither ours nor installed."""

from __future__ import annotations

import traceback

from pipeline.core.errors import PipelineError
from pipeline.core.places import is_users


def place_of(error: BaseException | None) -> str | None:
    """`file:line` of the last frame of user code; None for errors that were raised on purpose, or elsewhere."""
    if error is None or isinstance(error, PipelineError):
        return None
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_users(str(frame.f_globals.get("__name__")), frame.f_code.co_filename)
    ]
    return places[-1] if places else None
