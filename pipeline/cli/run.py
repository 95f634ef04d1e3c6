"""`penstock run`: the flags of a run."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from pipeline.cli import flags
from pipeline.cli.flags import choice, flag, once, only, repeated, several
from pipeline.cli.validate import AllowImport, Set, Var
from pipeline.core.budget import Budget

InputFormat = Literal["auto", "text", "nul", "jsonl", "csv", "tsv"]
ProgressStyle = Literal["auto", "rich", "plain", "none"]
BackendName = Literal["asyncio", "trio"]


def run(
    pipeline: Annotated[
        str | None,
        typer.Argument(metavar="PIPELINE", help="A pipeline file; with -m, the first input.", show_default=False),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Text lines, JSONL or CSV; - or none is stdin.", show_default=False),
    ] = None,
    output: Annotated[
        list[str] | None, once("--output", "-o", metavar="PATH", help="Where records go, instead of stdout.")
    ] = None,
    overwrite: Annotated[bool, flag("--overwrite", help="Replace an output that exists.")] = False,
    append: Annotated[bool, flag("--append", help="Add to an output that exists.")] = False,
    ordered: Annotated[bool, flag("--ordered", "-k", help="Records in input order.")] = False,
    raw: Annotated[bool, flag("--raw", "-r", help="Only the text of the output, like jq -r.")] = False,
    raw_field: Annotated[
        str | None,
        flag("--raw-field", metavar="NAME", help="As --raw, of one field of the output, or of the stage NAME."),
    ] = None,
    stream: Annotated[
        bool,
        flag("--stream", help="For one prompt: the last agent's answer as it comes, on stderr; with -r on stdout."),
    ] = False,
    limit: Annotated[
        int | None, flag("--limit", "-n", metavar="N", parser=flags.a_count, help="At most so many records.")
    ] = None,
    concurrency: Annotated[
        int | None,
        flag(
            "--concurrency",
            "-j",
            metavar="N",
            parser=flags.a_positive_count,
            help="Calls in flight of each agent that does not say (16).",
        ),
    ] = None,
    model: Annotated[
        str | None, flag("--model", "-m", metavar="PROVIDER/MODEL", help="Without a file: the model to ask.")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        repeated(
            "--prompt",
            "-p",
            metavar="[NAME=]TEMPLATE",
            help="Without a file: an agent; several, each with its NAME=, are a chain.",
        ),
    ] = None,
    system: Annotated[str | None, flag("--system", "-s", metavar="TEXT", help="Without a file: the role.")] = None,
    schema: Annotated[
        str | None,
        flag("--schema", metavar="FIELDS|FILE", help="Without a file: 'name, age int', or a JSON Schema in FILE.json."),
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Write the file that -m, -p, -s and --schema stand for, and exit.")
    ] = False,
    set: Set = None,
    var: Var = None,
    allow_import: AllowImport = None,
    input_format: Annotated[
        InputFormat, choice("--input-format", words=get_args(InputFormat), help="Else by extension, or the first line.")
    ] = "auto",
    encoding: Annotated[
        str | None, flag("--encoding", metavar="NAME", help="Of the input, as latin-1 (utf-8).")
    ] = None,
    max_record_bytes: Annotated[
        int | None,
        flag("--max-record-bytes", metavar="N", parser=flags.a_positive_count, help="A longer record fails (4 MiB)."),
    ] = None,
    max_bad_items: Annotated[
        float | None,
        flag(
            "--max-bad-items",
            metavar="N|SHARE",
            parser=flags.a_count_or_share,
            help="More records that cannot be read end the run (100, or 10% if that is more).",
        ),
    ] = None,
    strict: Annotated[
        bool, flag("--strict", help="The first record that cannot be read, or that repeats a key, ends the run.")
    ] = False,
    keep_empty: Annotated[bool, flag("--keep-empty", help="Blank lines of text are prompts too.")] = False,
    shard: Annotated[
        str | None,
        flag(
            "--shard",
            metavar="I/N",
            help="The I-th of N shares of the input (of its first records, with -n), by id or content. See merge.",
        ),
    ] = None,
    field: Annotated[str | None, flag("--field", metavar="NAME", help="The field that holds the prompt.")] = None,
    id_field: Annotated[str | None, flag("--id-field", metavar="NAME", help="The field that holds the id.")] = None,
    item_timeout: Annotated[
        float | None,
        flag(
            "--item-timeout",
            metavar="DURATION",
            parser=flags.a_positive_duration,
            help="A record that takes longer fails (30m; none).",
        ),
    ] = None,
    watchdog: Annotated[
        float | None,
        flag(
            "--watchdog",
            metavar="DURATION",
            parser=flags.a_positive_duration,
            help="A stage that keeps the event loop so long is named (250ms; none).",
        ),
    ] = None,
    stall_timeout: Annotated[
        float | None,
        flag(
            "--stall-timeout",
            metavar="DURATION",
            parser=flags.a_positive_duration,
            help="Without progress for so long, it is said what holds the run (5m; none).",
        ),
    ] = None,
    max_failures: Annotated[
        float | None,
        flag(
            "--max-failures",
            metavar="N|SHARE",
            parser=flags.a_count_or_share,
            help="More failed records end the run: 10, or 5%.",
        ),
    ] = None,
    budget: Annotated[
        Budget | None,
        flag(
            "--budget",
            metavar="5usd|2Mtok|10kreq",
            parser=flags.a_budget,
            help="The most that the run may spend; then it stops.",
        ),
    ] = None,
    rpm: Annotated[
        int | None,
        flag(
            "--rpm",
            metavar="N",
            parser=flags.a_positive_count,
            help="Requests a minute of each model, over what the file says.",
        ),
    ] = None,
    tpm: Annotated[
        int | None,
        flag(
            "--tpm",
            metavar="N",
            parser=flags.a_positive_count,
            help="Tokens a minute of each model, as 200k.",
        ),
    ] = None,
    cache: Annotated[
        bool, flag("--cache", help="Keep answers on disk, and take those that were asked for before from there.")
    ] = False,
    max_in_flight: Annotated[
        int | None,
        flag(
            "--max-in-flight",
            metavar="N",
            parser=flags.a_positive_count,
            help="Records admitted and not finished (256).",
        ),
    ] = None,
    grace: Annotated[
        float | None,
        flag(
            "--grace",
            metavar="DURATION",
            parser=flags.a_duration,
            help="After Ctrl-C, time for what is in flight (30s; none).",
        ),
    ] = None,
    backend: Annotated[
        BackendName, choice("--backend", words=get_args(BackendName), help="The event loop.")
    ] = "asyncio",
    progress: Annotated[
        ProgressStyle,
        choice("--progress", words=get_args(ProgressStyle), help="A live line, a line every 10 s, or none."),
    ] = "auto",
    quiet: Annotated[bool, flag("--quiet", "-q", help="Errors only on stderr.")] = False,
    verbose: Annotated[bool, flag("--verbose", "-v", help="Each failure as it happens.")] = False,
) -> None:
    """Run a pipeline over input."""
    from pipeline.cli.ending import ended
    from pipeline.cli.execution import execute
    from pipeline.cli.job import Flags, config_of, job_of
    from pipeline.cli.rawfield import check_raw_field
    from pipeline.cli.reading import reading
    from pipeline.cli.voice import Voice

    voice = Voice(quiet=quiet, verbose=verbose)

    def given() -> Flags:
        return Flags(
            words=(*([] if pipeline is None else [pipeline]), *(inputs or ())),
            output=only(output, "--output", "-"),
            overwrite=overwrite,
            append=append,
            ordered=ordered,
            limit=limit,
            concurrency=concurrency,
            overrides=several(set, "--set"),
            variables=several(var, "--var"),
            model=model,
            prompts=several(prompt, "--prompt"),
            system=system,
            schema=schema,
            raw=raw,
            raw_field=raw_field,
            stream=stream,
            input_format=input_format,
            field=field,
            id_field=id_field,
            reading=reading(encoding, max_record_bytes, max_bad_items, strict, keep_empty, shard),
            item_timeout=item_timeout,
            watchdog=watchdog,
            stall_timeout=stall_timeout,
            max_failures=max_failures,
            budget=budget,
            rpm=rpm,
            tpm=tpm,
            cache=cache,
            max_in_flight=max_in_flight,
            grace=grace,
            allow_import=several(allow_import, "--allow-import"),
            backend=backend,
            progress=progress,
        )

    def command() -> int:
        if print_config:
            typer.echo(config_of(given()).encode(), nl=False)
            return 0
        job = job_of(given(), voice)
        check_raw_field(raw_field, job.pipeline.stage)
        return execute(job, limit=limit if shard is None else 0)  # a share may be empty

    ended(command, voice, "penstock run --help")
