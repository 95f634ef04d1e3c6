"""The command on a disk that takes its time: each commit lasts for 0.4 s. The file in SLOW_DISK is there once the first
one has begun.

    SLOW_DISK=begun python -m tests.cli.slow_disk run …
"""

from __future__ import annotations

from pipeline.cli.main import main
from pipeline.durability.disk.store import silent


def _slowly(point: str) -> None:
    """Takes the place of the probe that does nothing, whose module it will not be in."""
    import os
    import time

    if point == "commit:before":
        os.close(os.open(os.environ["SLOW_DISK"], os.O_WRONLY | os.O_CREAT))
        time.sleep(0.4)


if __name__ == "__main__":
    silent.__code__ = _slowly.__code__
    main()
