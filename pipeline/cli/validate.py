"""`penstock validate`: every mistake in a pipeline file with its line, or one line that says what would run."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.flags import pairs, repeated, several

PipelineFile = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A pipeline file, - for stdin.", show_default=False)
]
Set = Annotated[
    list[str] | None,
    repeated("--set", metavar="A.B=C", help="Change the file: stages.draft.concurrency=8, models.fake=openai/gpt-5.5."),
]
Var = Annotated[list[str] | None, repeated("--var", metavar="NAME=VALUE", help="What templates see as vars.NAME.")]
AllowImport = Annotated[
    list[str] | None,
    repeated(
        "--allow-import",
        metavar="PACKAGE",
        help="Let the file call code of PACKAGE, found as Python finds it; ./PACKAGE is found here.",
    ),
]


def validate(
    pipeline: PipelineFile,
    set: Set = None,
    var: Var = None,
    allow_import: AllowImport = None,
) -> None:
    """Check a pipeline file."""
    from pipeline.cli.definition import Changes, read_pipeline
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    voice = Voice()

    def command() -> int:
        changes = Changes(
            several(set, "--set"), pairs(several(var, "--var"), "--var"), several(allow_import, "--allow-import")
        )
        found = read_pipeline(pipeline, changes, voice.note)
        typer.echo(f"{pipeline}: valid; {found}")
        return 0

    ended(command, voice, "penstock validate --help")
