"""`penstock merge`: outputs of the shares of one input to one output."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.cli.flags import flag, once, only

if TYPE_CHECKING:
    from pipeline.cli.voice import Voice
    from pipeline.core.record import Status
    from pipeline.durability.merging import Gaps
    from pipeline.durability.merging.whole import Write

EPILOG = """\b
  penstock run p.yaml in.jsonl --shard 1/4 -k -o part1.jsonl    # and 2/4, 3/4, 4/4, anywhere
  penstock merge part*.jsonl -k -o out.jsonl
Refused are ids that come twice, torn lines and lines that are no records, all before anything is written.
Ends with 0 when everything was merged, failed records included    4: refused, nothing written
  74: reading or writing failed    130: Ctrl-C    141: the reader of stdout left
"""

TERMINATED = 143


def merge(
    outputs: Annotated[
        list[str], typer.Argument(metavar="OUTPUT", help="Outputs of runs, .gz or not.", show_default=False)
    ],
    output: Annotated[
        list[str] | None,
        once("--output", "-o", metavar="PATH", help="Where records go, instead of stdout; .gz compresses."),
    ] = None,
    ordered: Annotated[bool, flag("--ordered", "-k", help="Records in input order.")] = False,
    overwrite: Annotated[bool, flag("--overwrite", help="Replace an output that exists.")] = False,
    quiet: Annotated[bool, flag("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Merge outputs."""
    from pipeline.cli.ending import ended
    from pipeline.cli.exits import UsageError
    from pipeline.cli.voice import Voice

    voice = Voice(quiet=quiet)

    def command() -> int:
        target = only(output, "--output", "-")
        if overwrite and target == "-":
            raise UsageError("--overwrite is about a file: name it with -o")
        with _terminated_tidily():
            return _merged(tuple(outputs), target, ordered, overwrite, voice)

    ended(command, voice, "penstock merge --help")


def _merged(paths: Sequence[str], target: str, ordered: bool, overwrite: bool, voice: Voice) -> int:
    from pipeline.durability.merging import Gaps, check, lines
    from pipeline.durability.merging.outputs import output_file
    from pipeline.durability.merging.whole import whole_file

    gaps = Gaps()
    with ExitStack() as stack:
        files = [stack.enter_context(output_file(path)) for path in paths]
        out = _stdout(paths) if target == "-" else whole_file(target, overwrite=overwrite, inputs=paths)
        write = stack.enter_context(out)
        checked = check(files)
        for line in lines(checked, ordered=ordered, gaps=gaps):
            write(line)
    for text in _said(len(paths), checked.statuses, gaps if ordered else None):
        voice.note(text)
    return 0


def _said(outputs: int, statuses: Mapping[Status, int], gaps: Gaps | None) -> Iterator[str]:
    """What there is to say of a merge: the places without a record, and the counts."""
    if gaps is not None and gaps.missing:
        some = ", ".join(map(str, gaps.examples)) + (", …" if gaps.missing > len(gaps.examples) else "")
        places = "place" if gaps.missing == 1 else "places"
        yield f"missing: {gaps.missing:,} {places} of the input without a record (skipped, or in no output): {some}"
    if gaps is not None and gaps.shared:
        yield f"warning: {gaps.shared:,} places with records of several ids; are these shares of one input?"
    counts = ", ".join(f"{count:,} {status}" for status, count in statuses.items()) or "0 records"
    yield f"merged: {counts} of {outputs:,} {'output' if outputs == 1 else 'outputs'}"


@contextmanager
def _stdout(inputs: Sequence[str]) -> Generator[Write]:
    """Give a function that writes to stdout. Raises `SinkError` if it is closed or is read as well."""
    from pipeline.core.errors import SinkError, WriteError
    from pipeline.core.visible import visible
    from pipeline.durability.merging.whole import failed

    stdout = sys.stdout
    if stdout is None or stdout.closed:  # pyright: ignore[reportUnnecessaryComparison] - None if 1 is closed at start
        raise WriteError("stdout is closed; give an output file (-o FILE)")
    found = os.fstat(stdout.fileno())
    for path in inputs:
        if stat.S_ISREG(found.st_mode) and os.path.exists(path) and os.path.samestat(os.stat(path), found):
            raise SinkError(f"stdout: is one of the outputs to merge, {path}; write to another file")
    terminal = os.isatty(stdout.fileno())
    try:
        yield lambda line: stdout.buffer.write(visible(line.decode()).encode() if terminal else line)
        stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise failed("stdout", error) from error


@contextmanager
def _terminated_tidily() -> Generator[None]:
    """Let SIGTERM and SIGHUP unwind the stack, so that what was begun is removed."""

    def leave(number: int, frame: object) -> NoReturn:
        del number, frame
        raise SystemExit(TERMINATED)

    numbers = [found for name in ("SIGTERM", "SIGHUP") if (found := getattr(signal, name, None)) is not None]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
