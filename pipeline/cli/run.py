"""`penstock run`: the flags of a run."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import typer

from pipeline.cli import flags
from pipeline.cli.flags import choice, flag, once, only, repeated, several
from pipeline.cli.operational import (
    BACKEND,
    PROGRESS,
    BackendName,
    BudgetOf,
    Concurrency,
    Deadline,
    Grace,
    ItemTimeout,
    JsonStatus,
    MaxFailures,
    MaxInFlight,
    ProgressStyle,
    Quiet,
    Rpm,
    StallTimeout,
    Tpm,
    Verbose,
    Watchdog,
)
from pipeline.cli.validate import AllowImport, Set, Var

InputFormat = Literal["auto", "text", "nul", "jsonl", "csv", "tsv"]
DurabilityName = Literal["power", "process"]


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
    errors: Annotated[
        str | None,
        flag("--errors", metavar="PATH", help="Where failed records go in full (errors.jsonl where the run is kept)."),
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
    concurrency: Concurrency = None,
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
    item_timeout: ItemTimeout = None,
    watchdog: Watchdog = None,
    stall_timeout: StallTimeout = None,
    deadline: Deadline = None,
    max_failures: MaxFailures = None,
    budget: BudgetOf = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    cache: Annotated[
        bool, flag("--cache", help="Keep answers on disk, and take those that were asked for before from there.")
    ] = False,
    max_in_flight: MaxInFlight = None,
    grace: Grace = None,
    name: Annotated[str | None, flag("--name", metavar="TEXT", help="What `penstock runs list` calls the run.")] = None,
    run_dir: Annotated[
        str | None, flag("--run-dir", metavar="DIR", help="Keep the run there, instead of in the store of runs.")
    ] = None,
    resume: Annotated[
        bool, flag("--resume", help="Go on with the run in --run-dir if there is one; the same flags, the same input.")
    ] = False,
    no_store: Annotated[
        bool, flag("--no-store", help="Keep nothing: a run that is cut short has to pay for its answers again.")
    ] = False,
    durability: Annotated[
        DurabilityName,
        choice(
            "--durability", words=get_args(DurabilityName), help="What a kept run survives: loss of power, or less."
        ),
    ] = "power",
    backend: Annotated[BackendName, BACKEND] = "asyncio",
    progress: Annotated[ProgressStyle, PROGRESS] = "auto",
    json_status: JsonStatus = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a pipeline over input."""
    from dataclasses import replace

    from pipeline.cli.ending import ended
    from pipeline.cli.execution import execute
    from pipeline.cli.given import given_of
    from pipeline.cli.job import Flags, config_of, document_of, job_of, words_of
    from pipeline.cli.keeping import Keeping, keep
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
            deadline=deadline,
            errors=errors,
        )

    def command() -> int:
        if print_config:
            typer.echo(config_of(given()).encode(), nl=False)
            return 0
        asked = given()
        keeping = Keeping(run_dir, resume, no_store, name, durability)
        title, sources = words_of(asked)
        document = document_of(asked, title)
        job = job_of(asked, document, sources, voice)
        check_raw_field(raw_field, job.pipeline.stage)
        job = keep(job, given_of(asked, document, sources), keeping)
        # a share may be empty, and so may be what an earlier run has left
        wanted = limit if shard is None and (job.kept is None or job.kept.fresh) else 0
        return execute(replace(job, json_status=json_status), limit=wanted)

    ended(command, voice, "penstock run --help")
