"""The command may raise the limit of open files of its own process; a library may not."""

from __future__ import annotations

import sys
from typing import Final

RESERVE: Final = 128  #: descriptors beside those of connections: files, pipes, libraries


def raise_limit(calls: int | None) -> str | None:
    """Raise the soft limit of open files so far that `calls` connections fit, and return a warning when they do not.

    The limit that the system sets (the hard one) stays as it is, so a run with more calls takes turns for connections.
    """
    if calls is None or sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = calls + RESERVE
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # a system may set yet another limit
        most = soft
    if most >= wanted:
        return None
    return (
        f"warning: {calls} calls may want a connection each, and the limit of open files is {most}; "
        f"those beyond about {max(1, most - RESERVE)} wait, unless you raise it with `ulimit -n {wanted}`"
    )
