"""Where in the user's code an exception was raised: its last frame that is neither ours nor installed."""

from __future__ import annotations

import sysconfig
import traceback

from pipeline.core.errors import PipelineError

_OURS = ("pipeline", "stages")


def place_of(error: BaseException | None) -> str | None:
    """`file:line` of the last frame of user code; None for errors that were raised on purpose, or elsewhere."""
    if error is None or isinstance(error, PipelineError):
        return None
    places = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if _is_users(str(frame.f_globals.get("__name__")), frame.f_code.co_filename)
    ]
    return places[-1] if places else None


def _is_users(module: str, file: str) -> bool:
    installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return module.partition(".")[0] not in _OURS and not file.startswith(("<", *installed))
