"""The entry of the command `penstock`: Ctrl-C ends it without a traceback from the very start."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command and exit with its code."""
    try:
        from pipeline.cli.app import app
    except KeyboardInterrupt:  # while the imports go on: nothing has begun that would have to be ended
        os._exit(130)
    app(prog_name="penstock")


if __name__ == "__main__":
    main()
