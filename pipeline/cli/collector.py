"""The command's process only runs a pipeline, so Python's garbage collector can be told what that is like."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

#: How many objects are made before the youngest are looked through, and how often older ones are. With thousands of
#: calls in flight most objects live for a second; at Python's 700 they are looked through again and again, which is a
#: third of all work.
THRESHOLD: Final = (20_000, 20, 50)


@contextmanager
def seldom_collected() -> Generator[None]:
    """Let the collector run seldom, for the length of the block. A library leaves that to its host."""
    before = gc.get_threshold()
    gc.set_threshold(*THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
