"""Knowing when nothing of an item is left in one place: members that a join did not wait for, and visits that were
cancelled and take their time to end, are still there when the item has gone on."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.core.item import Keeper


class Remains:
    """Counts the frames below one frame, itself included, and calls `gone` when none is left. A `Keeper`, which tells
    the one around it, too."""

    __slots__ = ("_gone", "_left", "_outer")

    def __init__(self, outer: Keeper, gone: Callable[[], object]) -> None:
        self._outer = outer
        self._gone = gone
        self._left = 1  #: the frame of the item itself, which `outer` knows of

    def grow(self) -> None:
        self._left += 1
        self._outer.grow()

    def shrink(self) -> None:
        self._outer.shrink()
        self._less()

    def hold(self) -> None:
        self._left += 1
        self._outer.hold()

    def let_go(self) -> None:
        self._outer.let_go()
        self._less()

    def _less(self) -> None:
        self._left -= 1
        if not self._left:
            self._gone()
