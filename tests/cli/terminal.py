"""The installed command in a terminal of its own, which hears Ctrl-C and shows its words as a person sees them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.cli.command import COMMAND, PATIENCE, Running, environment

#: so wide that no line is folded
_ROWS, _COLUMNS = 50, 400

#: what a terminal obeys, and its own echo
_NO_WORDS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|[\r\x07]|\^C")


class InTerminal(Running):
    """As `Running`, with a terminal that controls the process as its stderr; stdin and stdout are pipes."""

    def __init__(
        self, *args: str | Path, cwd: Path | None = None, command: Sequence[str] = COMMAND, **env: str
    ) -> None:
        self.screen, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [*command, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=theirs,
            cwd=cwd,
            env=environment(TERM="xterm", NO_COLOR="1", **env),
            preexec_fn=_own_session,
        )
        os.close(theirs)
        self._hung_up = False
        self._interrupts = 0  #: that the terminal has taken
        self.words: list[str] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.hang_up()

    def signal(self, number: int = signal.SIGINT) -> None:
        """Ctrl-C is typed; other signals come from elsewhere."""
        if number == signal.SIGINT:
            seen = self._interrupts
            os.write(self.screen, b"\x03")
            with self._news:  # the terminal shows what it has taken
                assert self._news.wait_for(lambda: self._interrupts > seen, PATIENCE), "it was not heard"
        else:
            super().signal(number)

    def hang_up(self) -> None:
        """The terminal goes away, as when its window is closed."""
        if not self._hung_up:
            self._hung_up = True
            self._listener.join()
            os.close(self.screen)

    def _listen(self) -> None:
        rest = b""
        while not self._hung_up:
            if not select.select([self.screen], [], [], 0.05)[0]:
                continue
            try:
                block = os.read(self.screen, 65536)
            except OSError:  # the last writer has closed it
                break
            with self._news:
                self._interrupts += block.count(b"^C")
                self._news.notify_all()
            *lines, rest = (rest + block).split(b"\n")
            self._heard(lines)
        self._heard([rest])

    def _heard(self, lines: list[bytes]) -> None:
        with self._news:
            words = (_NO_WORDS.sub("", line.decode(errors="replace")).strip() for line in lines)
            self.words += [word for word in words if word]
            self._news.notify_all()


def _own_session() -> None:
    os.setsid()
    fcntl.ioctl(2, termios.TIOCSCTTY, 0)
