"""`penstock graph`: a pipeline as a picture."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from pipeline.cli.flags import flag, pairs, several
from pipeline.cli.validate import AllowImport, PipelineFile, Set, Var

Format = Literal["terminal", "mermaid"]


def graph(
    pipeline: PipelineFile,
    format: Annotated[Format, flag("--format", help="How to draw it.")] = "terminal",
    set: Set = None,
    var: Var = None,
    allow_import: AllowImport = None,
) -> None:
    """Draw a pipeline."""
    import shutil
    import sys

    from pipeline.cli.definition import Changes, read_pipeline
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice
    from pipeline.observe.graph import draw, mermaid

    def command() -> int:
        changes = Changes(
            several(set, "--set"), pairs(several(var, "--var"), "--var"), several(allow_import, "--allow-import")
        )
        stage = read_pipeline(pipeline, changes).stage
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        picture = mermaid(stage) if format == "mermaid" else draw(stage, width)
        typer.echo(picture.encode())  # UTF-8, whatever the locale says
        return 0

    ended(command, Voice(), "penstock graph --help")
