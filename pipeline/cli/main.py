"""The entry of the command `penstock`: Ctrl-C ends it without a traceback from the very start."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command and exit with its code."""
    try:
        _occupy_standard_descriptors()
        from pipeline.cli.terminated import listen

        listen()
        from pipeline.cli.app import app

        app(prog_name="penstock")
    except KeyboardInterrupt as told:  # while imports go on: nothing has begun that would have to be ended
        os._exit(getattr(told, "code", 130))


def _occupy_standard_descriptors() -> None:
    """Let no file of ours get the number of a standard stream that was closed before we began.

    Words would be written into it, and the faster event loop ends the process when it meets one of its own there. The
    interpreter knows the closed ones as None, so they are still told apart.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one


if __name__ == "__main__":
    main()
