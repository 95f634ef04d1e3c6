"""`penstock run`: the flags of a run, and what they stand for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipeline.cli import flags
from pipeline.cli.exits import UsageError
from pipeline.cli.flags import flag, repeated, several
from pipeline.cli.validate import AllowImport, Set, Var

if TYPE_CHECKING:
    from pipeline.cli.definition import Changes
    from pipeline.cli.execution import Job
    from pipeline.cli.voice import Voice
    from pipeline.core.pipeline import Pipeline

InputFormat = Literal["auto", "text", "nul", "jsonl", "csv", "tsv"]
ProgressStyle = Literal["auto", "rich", "plain", "none"]
BackendName = Literal["asyncio", "trio"]

ITEM_TIMEOUT = 1800.0  #: seconds, so that one stuck record cannot hold up a run for good
GRACE = 30.0  #: seconds for what is in flight after the first signal
HELP = "penstock run --help"
EXAMPLES = """no input: stdin is a terminal. Name a file, or pipe records in:
  penstock run review.yaml prompts.jsonl -o out.jsonl
  echo "good morning" | penstock run -m sim/echo -p 'Translate to French: {{ prompt }}' -r"""


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags of one run, as they were given."""

    words: tuple[str, ...]
    output: str
    overwrite: bool
    append: bool
    ordered: bool
    limit: int | None
    concurrency: int | None
    overrides: tuple[str, ...]
    variables: tuple[str, ...]
    model: str | None
    prompts: tuple[str, ...]
    system: str | None
    schema: str | None
    print_config: bool
    raw: bool
    raw_field: str | None
    input_format: InputFormat
    field: str | None
    id_field: str | None
    item_timeout: float | None
    max_failures: int | float | None
    max_in_flight: int | None
    grace: float
    allow_import: tuple[str, ...]
    backend: BackendName
    progress: ProgressStyle

    @property
    def ad_hoc(self) -> bool:
        """Whether the pipeline is in the flags instead of a file."""
        return self.model is not None or bool(self.prompts) or self.system is not None or self.schema is not None


def run(
    pipeline: Annotated[
        str | None,
        typer.Argument(metavar="PIPELINE", help="A pipeline file; with -m, the first input.", show_default=False),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Text lines, JSONL or CSV; - or none is stdin.", show_default=False),
    ] = None,
    output: Annotated[str, flag("--output", "-o", metavar="PATH", help="Where records go, instead of stdout.")] = "-",
    overwrite: Annotated[bool, flag("--overwrite", help="Replace an output that exists.")] = False,
    append: Annotated[bool, flag("--append", help="Add to an output that exists.")] = False,
    ordered: Annotated[bool, flag("--ordered", "-k", help="Records in input order.")] = False,
    raw: Annotated[bool, flag("--raw", "-r", help="Only the text of the output, like jq -r.")] = False,
    raw_field: Annotated[
        str | None,
        flag("--raw-field", metavar="NAME", help="As --raw, of one field of the output, or of the stage NAME."),
    ] = None,
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
        repeated("--prompt", "-p", metavar="[NAME=]TEMPLATE", help="Without a file: an agent; several are a chain."),
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
    input_format: Annotated[InputFormat, flag("--input-format", help="Else by extension, or the first line.")] = "auto",
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
    max_failures: Annotated[
        float | None,
        flag(
            "--max-failures",
            metavar="N|SHARE",
            parser=flags.a_count_or_share,
            help="More failed records end the run: 10, or 5%.",
        ),
    ] = None,
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
    backend: Annotated[BackendName, flag("--backend", help="The event loop.")] = "asyncio",
    progress: Annotated[ProgressStyle, flag("--progress", help="A live line, a line every 10 s, or none.")] = "auto",
    quiet: Annotated[bool, flag("--quiet", "-q", help="Errors only on stderr.")] = False,
    verbose: Annotated[bool, flag("--verbose", "-v", help="Each failure as it happens.")] = False,
) -> None:
    """Run a pipeline over input."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    given = Flags(
        words=(*([] if pipeline is None else [pipeline]), *(inputs or ())),
        output=output,
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
        print_config=print_config,
        raw=raw,
        raw_field=raw_field,
        input_format=input_format,
        field=field,
        id_field=id_field,
        item_timeout=item_timeout,
        max_failures=max_failures,
        max_in_flight=max_in_flight,
        grace=GRACE if grace is None else grace,
        allow_import=several(allow_import, "--allow-import"),
        backend=backend,
        progress=progress,
    )
    voice = Voice(quiet=quiet, verbose=verbose)
    ended(lambda: _run(given, voice), voice, HELP)


def _run(given: Flags, voice: Voice) -> int:
    if given.print_config:
        return _print_config(given)
    from pipeline.cli.execution import execute

    return execute(_job(given, voice))


def _job(given: Flags, voice: Voice) -> Job:
    """What the flags ask for. Raises `UsageError`, `ConfigError` and `DefinitionError`."""
    from pipeline.cli import ends
    from pipeline.cli.execution import Job

    name, inputs = _split(given)
    pipeline = _pipeline(given, name)
    source = ends.source(
        paths=inputs,
        format=given.input_format,
        field=given.field,
        id_field=given.id_field,
        limit=given.limit,
        notice=voice.note,
    )
    mode = "overwrite" if given.overwrite else "append" if given.append else "create"
    if given.raw or given.raw_field is not None:
        sink = ends.sink("raw", path=given.output, field=given.raw_field, mode=mode, inputs=inputs)
    else:
        sink = ends.sink("jsonl", path=given.output, mode=mode, inputs=inputs)
    return Job(
        name=name or given.model or "",
        pipeline=pipeline,
        source=source,
        sink=sink,
        inputs=inputs,
        output=given.output,
        backend=given.backend,
        progress=given.progress,
        grace=given.grace,
        voice=voice,
    )


def _split(given: Flags) -> tuple[str | None, tuple[str, ...]]:
    """The pipeline file, None for an ad hoc pipeline, and the inputs. Raises `UsageError`."""
    if given.overwrite and given.append:
        raise UsageError("--overwrite and --append exclude each other")
    if (given.overwrite or given.append) and given.output == "-":
        raise UsageError("--overwrite and --append are about a file: name it with -o")
    name, inputs = (None, given.words) if given.ad_hoc else (next(iter(given.words), None), given.words[1:])
    if given.ad_hoc:
        _refuse_files(inputs)
    if not inputs and _is_terminal(sys.stdin):
        raise UsageError(EXAMPLES)
    if name is None and not given.ad_hoc:
        raise UsageError("name a pipeline file, or a model with -m (sim/default needs no key)")
    return name, inputs or ("-",)


def _refuse_files(inputs: Sequence[str]) -> None:
    if inputs and inputs[0].endswith((".yaml", ".yml", ".toml")):
        raise UsageError(
            f"-m, -p, -s and --schema (or their PENSTOCK_ variables) run without a pipeline file, so "
            f"{inputs[0]} would be read as input; to change a file use --set models.NAME=provider/model"
        )


def _pipeline(given: Flags, name: str | None) -> Pipeline:
    from pipeline.cli.definition import read_pipeline, read_text

    changes = _changes(given)
    return read_text(_ad_hoc_text(given), "-m", changes) if name is None else read_pipeline(name, changes)


def _changes(given: Flags) -> Changes:
    from pipeline.cli.definition import Changes

    asked = {"max_in_flight": given.max_in_flight, "max_failures": given.max_failures}
    options: dict[str, object] = {option: value for option, value in asked.items() if value is not None}
    if given.ordered:
        options["ordered"] = True
    if given.item_timeout is not None:
        options["item_timeout"] = None if given.item_timeout == inf else given.item_timeout
    return Changes(
        given.overrides,
        flags.pairs(given.variables, "--var"),
        given.allow_import,
        given.concurrency,
        options,
        {"item_timeout": ITEM_TIMEOUT},
    )


def _ad_hoc_text(given: Flags) -> str:
    """The pipeline file that the flags stand for. Raises `UsageError`."""
    from pipeline.config.adhoc import ad_hoc

    if given.model is None:
        raise UsageError("-p, -s and --schema need a model: -m provider/model (sim/default needs no key)")
    try:
        return ad_hoc(given.model, given.prompts, system=given.system, schema=_schema(given.schema))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _schema(text: str | None) -> object:
    """What `--schema` says: the fields, or the schema in a file."""
    from pipeline.config.adhoc import short_schema
    from pipeline.core.codec import BadJson, decode

    if text is None:
        return None
    if not text.endswith(".json"):
        return short_schema(text)
    try:
        with open(text, "rb") as file:
            return decode(file.read())
    except OSError as error:
        raise UsageError(f"--schema {text}: {(error.strerror or str(error)).lower()}") from None
    except BadJson as error:
        raise UsageError(f"--schema {text}: {error}") from None


def _print_config(given: Flags) -> int:
    """Write the ad hoc pipeline as a file, if it is valid. Raises `UsageError` and `ConfigError`."""
    from pipeline.cli.definition import Changes, read_text

    if not given.ad_hoc:
        raise UsageError("--print-config shows the file that -m and -p stand for; give -m")
    if given.overrides:
        raise UsageError("--print-config does not include --set; give it to the run, or write it into the file")
    text = _ad_hoc_text(given)
    read_text(text, "-m", Changes())
    typer.echo(text.encode(), nl=False)
    return 0


def _is_terminal(stream: object) -> bool:
    try:
        return os.isatty(stream.fileno())  # pyright: ignore
    except (OSError, ValueError, AttributeError):
        return False
