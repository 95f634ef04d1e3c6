"""How a command ends: errors become one message and a code, and nothing keeps the process alive."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TextIO

import typer

from pipeline.cli.exits import OUTPUT_CLOSED, UsageError, code_of, told
from pipeline.cli.voice import Voice


def ended(command: Callable[[], int], voice: Voice, help: str) -> NoReturn:
    """Run `command` and exit with its code, or with that of what it raised."""
    try:
        code = command()
        _flush(sys.stdout)
    except BrokenPipeError:
        _forget_stdout()
        code = OUTPUT_CLOSED
    except (Exception, KeyboardInterrupt) as error:
        for text in told(error):
            voice.error(text)
        if isinstance(error, UsageError):
            voice.error(f"help: {help}")
        code = code_of(error)
    leave(code)


def leave(code: int) -> NoReturn:
    """Exit with `code`, at once when abandoned blocking calls would keep the interpreter waiting for their end."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    if any(not thread.daemon for thread in others):
        try:
            _flush(sys.stdout)
            _flush(sys.stderr)
        finally:
            os._exit(code)
    raise typer.Exit(code)


def _flush(stream: TextIO | None) -> None:
    """Flush what may be closed since the start, when the interpreter sets it to None."""
    if stream is not None:
        stream.flush()


def _forget_stdout() -> None:
    """Let the interpreter flush into nothing, instead of telling of the broken pipe once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
