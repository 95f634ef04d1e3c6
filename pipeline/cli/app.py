"""The commands of `penstock`. What a command needs beyond its flags is imported when it runs, so help comes at once."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.graph import graph
from pipeline.cli.merge import EPILOG as MERGE_EPILOG
from pipeline.cli.merge import merge
from pipeline.cli.resume import EPILOG as RESUME_EPILOG
from pipeline.cli.resume import resume
from pipeline.cli.run import run
from pipeline.cli.runs import runs
from pipeline.cli.sim import EPILOG, sim
from pipeline.cli.validate import validate
from pipeline.cli.verify import verify

_EXAMPLES = """Run streams of prompts through pipelines of LLM agents.

\b
  echo "good morning" | penstock run -m sim/echo -p 'Translate to French: {{ prompt }}' -r
  penstock run review.yaml prompts.jsonl -o out.jsonl
  penstock resume                      # go on with the last unfinished run of this directory
  penstock validate review.yaml
"""

_CODES = """\b
Ends with 0: all records ok    1: some failed    2: wrong flags    3: stopped by a rule, as --max-failures
  4: cannot start, or every record failed    70: a bug    74: reading or writing failed
  75: another process runs with it    78: a mistake in the pipeline file
  130: Ctrl-C    141: the reader of stdout left    143: SIGTERM or SIGHUP
"""

#: Plain help: with panels it takes twice as long to come, and logs cannot be searched.
app = typer.Typer(
    name="penstock", help=_EXAMPLES, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)
app.command("run", help="Run a pipeline over input; records to stdout or -o.", epilog=_CODES)(run)
app.command("resume", help="Go on with a run: the last unfinished one of this directory.", epilog=RESUME_EPILOG)(resume)
app.add_typer(runs, name="runs", help="Runs that were kept: list, show, path, rm, prune.")
app.command("verify", help="Prove that a run has lost nothing: the journal, and each file byte for byte.")(verify)
app.command("validate", help="Check a pipeline file: all its mistakes at once.")(validate)
app.command("merge", help="Merge outputs of shares: one output, each record once.", epilog=MERGE_EPILOG)(merge)
app.command("sim", help="Serve a simulated model over HTTP, with limits and faults as asked.", epilog=EPILOG)(sim)
app.command("graph", help="Draw a pipeline: for the terminal, or as Mermaid.")(graph)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def _penstock(  # pyright: ignore[reportUnusedFunction] - typer keeps it
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version
