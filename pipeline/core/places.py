"""Whose code a frame runs: a place that a user can go to is neither ours nor installed."""

from __future__ import annotations

import sysconfig
from functools import cache

_OURS = ("pipeline", "stages")


def is_ours(module: str) -> bool:
    """Say whether `module` is of the engine or its stages."""
    return module.partition(".")[0] in _OURS


def is_users(module: str, file: str) -> bool:
    """Say whether code of `module`, in `file`, is the user's own."""
    return not is_ours(module) and not file.startswith(("<", *_installed()))


@cache
def _installed() -> tuple[str, ...]:
    """Where Python and packages are, which takes a while to find out."""
    return tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
