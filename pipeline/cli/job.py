"""From the flags of a run to what is to be run: the pipeline, its input and its output."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from pipeline.cli import ends
from pipeline.cli.definition import Changes, read_content, read_text
from pipeline.cli.execution import Backend, Job
from pipeline.cli.exits import UsageError
from pipeline.cli.flags import pairs
from pipeline.cli.streaming import streamed
from pipeline.cli.voice import Voice
from pipeline.config.adhoc import ad_hoc, short_schema
from pipeline.core.budget import Budget
from pipeline.core.codec import BadJson, decode
from pipeline.core.ports import Source
from pipeline.core.targets import label_key
from pipeline.observe.progress import Progress

ITEM_TIMEOUT = 1800.0  #: seconds, so that one stuck record cannot hold up a run for good
WATCHDOG = 0.25  #: seconds for which a stage may keep the event loop before it is named
STALL_TIMEOUT = 300.0  #: seconds without progress, after which it is said what holds the run
AD_HOC = "-m"  #: the title of a pipeline that is in the flags
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
    raw: bool
    raw_field: str | None
    stream: bool
    input_format: str
    field: str | None
    id_field: str | None
    reading: Mapping[str, object]  #: more options of the source
    item_timeout: float | None
    watchdog: float | None
    stall_timeout: float | None
    max_failures: int | float | None
    budget: Budget | None
    rpm: int | None
    tpm: int | None
    cache: bool
    max_in_flight: int | None
    grace: float | None
    allow_import: tuple[str, ...]
    backend: Backend
    progress: Progress
    deadline: float | None
    errors: str | None

    @property
    def ad_hoc(self) -> bool:
        """Whether the pipeline is in the flags instead of a file."""
        return self.model is not None or bool(self.prompts) or self.system is not None or self.schema is not None


@dataclass(frozen=True, slots=True)
class Document:
    """What describes the pipeline."""

    text: str | bytes
    title: str  #: what messages call it; its extension tells the form of the text
    path: str | None  #: of the file that it comes from

    @property
    def as_text(self) -> str:
        """What is kept of it: a text that is no UTF-8 was refused already."""
        return self.text if isinstance(self.text, str) else self.text.decode("utf-8", "replace")


def document_of(given: Flags, name: str | None) -> Document:
    """The pipeline file `name`, `-` for stdin, None for what the flags stand for. Raises `UsageError` and
    `ConfigError`."""
    if name is None:
        return Document(_ad_hoc_text(given), AD_HOC, None)
    if name == "-":
        return Document(read_content(name), "stdin", None)
    return Document(read_content(name), name, name)


def job_of(given: Flags, document: Document, inputs: tuple[str, ...], voice: Voice) -> Job:
    """What the flags ask for. Raises `UsageError`, `ConfigError` and `DefinitionError`."""
    pipeline = read_text(document.text, document.title, _changes(given), voice.note)
    stream = None
    if given.stream:
        stream = streamed(pipeline.stage, raw=given.raw, raw_field=given.raw_field, output=given.output)
    label = label_key(pipeline.stage)
    mode = "overwrite" if given.overwrite else "append" if given.append else "create"
    if given.raw or given.raw_field is not None:
        sink = ends.sink("raw", path=given.output, field=given.raw_field, mode=mode, inputs=inputs, label=label)
    else:
        sink = ends.sink("jsonl", path=given.output, mode=mode, inputs=inputs, label=label)
    return Job(
        name=document.title if document.title != AD_HOC else given.model or "",
        pipeline=pipeline,
        source=source_of(given, inputs, voice),
        sink=sink,
        inputs=inputs,
        output=given.output,
        backend=given.backend,
        progress=given.progress,
        grace=given.grace,
        deadline=given.deadline,
        voice=voice,
        stream=stream,
    )


def source_of(given: Flags, inputs: tuple[str, ...], voice: Voice) -> Source:
    """The input that the flags describe. Raises `DefinitionError`."""
    return ends.source(
        paths=inputs,
        format=given.input_format,
        field=given.field,
        id_field=given.id_field,
        limit=given.limit,
        notice=voice.note,
        **given.reading,
    )


def words_of(given: Flags) -> tuple[str | None, tuple[str, ...]]:
    """The pipeline file, None for an ad hoc pipeline, and the inputs. Raises `UsageError`."""
    if given.overwrite and given.append:
        raise UsageError("--overwrite and --append exclude each other")
    if (given.overwrite or given.append) and given.output == "-":
        raise UsageError("--overwrite and --append are about a file: name it with -o")
    name, inputs = (None, given.words) if given.ad_hoc else (next(iter(given.words), None), given.words[1:])
    if given.ad_hoc:
        _refuse_files(inputs)
    if not inputs and sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - None if 0 is closed at start
        raise UsageError("no input: stdin is closed; name a file, or give stdin one: … < prompts.txt")
    if not inputs and _is_terminal(sys.stdin):
        raise UsageError(EXAMPLES)
    if name is None and not given.ad_hoc:
        raise UsageError("name a pipeline file, or a model with -m (sim/default needs no key)")
    inputs = inputs or ("-",)
    if name == "-" and "-" in inputs:
        raise UsageError("the pipeline comes from stdin, so the input cannot; name an input file, or the pipeline's")
    return name, inputs


def _refuse_files(inputs: Sequence[str]) -> None:
    if inputs and inputs[0].endswith((".yaml", ".yml", ".toml")):
        raise UsageError(
            f"-m, -p, -s and --schema (or their PENSTOCK_ variables) run without a pipeline file, so "
            f"{inputs[0]} would be read as input; to change a file use --set models.NAME=provider/model"
        )


def _changes(given: Flags) -> Changes:
    asked = {"max_in_flight": given.max_in_flight, "max_failures": given.max_failures, "budget": given.budget}
    options: dict[str, object] = {option: value for option, value in asked.items() if value is not None}
    if given.ordered:
        options["ordered"] = True
    times = {"item_timeout": given.item_timeout, "watchdog": given.watchdog, "stall_timeout": given.stall_timeout}
    options |= {option: None if value == inf else value for option, value in times.items() if value is not None}
    return Changes(
        given.overrides,
        pairs(given.variables, "--var"),
        given.allow_import,
        given.concurrency,
        given.stream,
        _model_options(given),
        options,
        {"item_timeout": ITEM_TIMEOUT, "watchdog": WATCHDOG, "stall_timeout": STALL_TIMEOUT},
    )


def _model_options(given: Flags) -> dict[str, object]:
    """What flags say of all models."""
    asked = {"requests_per_minute": given.rpm, "tokens_per_minute": given.tpm, "cache": given.cache or None}
    return {option: value for option, value in asked.items() if value is not None}


def _ad_hoc_text(given: Flags) -> str:
    """The pipeline file that the flags stand for. Raises `UsageError`."""
    if given.model is None:
        raise UsageError("-p, -s and --schema need a model: -m provider/model (sim/default needs no key)")
    try:
        return ad_hoc(given.model, given.prompts, system=given.system, schema=_schema(given.schema))
    except ValueError as error:
        raise UsageError(str(error)) from None


def _schema(text: str | None) -> object:
    """What `--schema` says: the fields, or the schema in a file."""
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


def config_of(given: Flags) -> str:
    """The ad hoc pipeline as a file, if it is valid. Raises `UsageError` and `ConfigError`."""
    if not given.ad_hoc:
        raise UsageError("--print-config shows the file that -m and -p stand for; give -m")
    if given.overrides:
        raise UsageError("--print-config does not include --set; give it to the run, or write it into the file")
    text = _ad_hoc_text(given)
    read_text(text, AD_HOC, Changes())
    return text


def _is_terminal(stream: object) -> bool:
    try:
        return os.isatty(stream.fileno())  # pyright: ignore
    except (OSError, ValueError, AttributeError):
        return False
