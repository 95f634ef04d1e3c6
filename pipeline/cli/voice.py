"""Words for people: on stderr only, harmless to terminals, and never the reason why a run ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pipeline.core.visible import visible


class Voice:
    """What the command says. What changes: `above`, set while a live line is shown that words must not tear, and
    `before`, set while an answer is shown as it comes, which is asked before words are said."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self.above: Callable[[str], None] | None = None
        self.before: Callable[[], None] | None = None

    def note(self, text: str) -> None:
        """Say something that may be left out."""
        if not self.quiet:
            self.error(text)

    def detail(self, text: str) -> None:
        """Say something that was asked for with -v."""
        if self.verbose:
            self.error(text)

    def error(self, text: str) -> None:
        """Say something that has to be said."""
        if self.before is not None:
            self.before()
        try:
            if self.above is not None:
                self.above(visible(text))
            else:
                self._write(visible(text) + "\n")
        except (OSError, ValueError):
            pass  # nobody is there to hear it; the records matter more

    def piece(self, text: str) -> None:
        """Show a piece of an answer, which need not be a line."""
        try:
            self._write(visible(text))
        except (OSError, ValueError):
            pass

    def _write(self, text: str) -> None:
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison] - None if 2 is closed at start
            sys.stderr.write(text)
            sys.stderr.flush()
