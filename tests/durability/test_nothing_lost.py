"""What others wrote into an output, and what an output had, is never lost: it is refused, or kept beside it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from pipeline.core.errors import OutputLocked, WriteError
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Resource, Sink
from pipeline.core.record import Record
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.journal import FILE, Journal
from pipeline.durability.outputs.aside import EDITED, keep
from pipeline.durability.outputs.comparing import Changed, compare
from pipeline.durability.outputs.files import marks_of
from pipeline.durability.outputs.output import Line, Output
from pipeline.durability.outputs.projection import OUTDATED, Mark
from pipeline.durability.resume.reopening import Reopen
from stages import agent, map, route
from stages.models import resolve
from stages.sinks import DeadLetters, JsonlSink

BACKENDS = ("asyncio", "trio")
PROMPTS = [f"p{number}" for number in range(8)]


def third(value: object) -> str:
    if str(value) in ("p2", "p5"):
        raise ValueError("some of them")
    return "up" if int(str(value)[1:]) % 2 else "low"


def upper(value: object) -> str:
    return str(value).upper()


SORTED = Pipeline(
    route({"up": map(upper, name="up"), "low": map(str.lower, name="low")}, by=third, name="kind"),
    max_in_flight=4,
    ordered=True,
)
TALK = Pipeline(agent("say", model=resolve("sim/echo", latency=0), prompt="1 {{ prompt }}"), ordered=True)


def on(backend: str, body: Callable[[], Awaitable[object]]) -> None:
    anyio.run(body, backend=backend)


def journal(place: Path, output: str = "out.jsonl", **options: object) -> Journal:
    return Journal(place / "run", output=place / output, **options)  # type: ignore[arg-type]


def bytes_of(place: Path) -> dict[str, bytes]:
    """Every file but the journal's own, by name."""
    return {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}


def change(place: Path, *statements: tuple[str, tuple[object, ...]]) -> None:
    store = Store.open(place / "run" / FILE, "power", silent)
    store.change(*statements)  # type: ignore[arg-type]
    store.close(fold=True)


def marks(place: Path) -> dict[str, Mark]:
    with Store.looking(place / "run" / FILE) as store:
        return dict(marks_of(store))


def set_back(place: Path, output: Path, lines: int) -> int:
    """Have the journal know only of the first lines of an output, as after a crash; their size."""
    size = sum(len(line) for line in output.read_bytes().splitlines(keepends=True)[:lines])
    mark = marks(place)["output"]
    change(place, Mark(size, lines, mark.tail, mark.base, mark.before).row("output"))
    return size


# -- what lies behind the mark ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("zeros", [0, 5000], ids=["torn", "zeros of a loss of power"])
def test_a_beginning_of_the_lines_to_come_is_cut_back_wherever_it_is_torn(
    backend: str, zeros: int, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"

    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path))
        whole = path.read_bytes()
        size = set_back(tmp_path, path, 3)
        for end in (size, size + 1, size + 200, len(whole) - 1, len(whole)):
            path.write_bytes(whole[:end] + bytes(zeros))
            set_back(tmp_path, path, 3)
            await SORTED.run(PROMPTS, journal=journal(tmp_path))
            assert path.read_bytes() == whole

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kept", [0, 1, 40], ids=["at the mark", "a byte of a line", "part of a line"])
def test_lines_that_others_wrote_behind_the_own_are_refused_and_stay(backend: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path))
        whole = path.read_bytes()
        size = set_back(tmp_path, path, 3)
        path.write_bytes(whole[: size + kept] + b"by hand\n")
        found = path.read_bytes()
        with pytest.raises(Changed, match=f"was changed: byte {size + kept:,} is not what was written"):
            await SORTED.run(PROMPTS, journal=journal(tmp_path))
        assert path.read_bytes() == found

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_another_run_appended_to_the_same_file_is_not_cut_off(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    async def body() -> None:
        await SORTED.run(PROMPTS[:4], journal=journal(tmp_path))
        other = Journal(tmp_path / "other", output=Output(path, "append"))
        await SORTED.run(PROMPTS, journal=other)
        both = path.read_bytes()
        size = marks(tmp_path)["output"].size
        with pytest.raises(Changed, match=f"byte {size:,} is not what was written"):
            await SORTED.run(PROMPTS, journal=journal(tmp_path))
        assert path.read_bytes() == both
        await SORTED.run(PROMPTS, journal=other)
        assert path.read_bytes() == both, "the last one in the file goes on"

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["low-ok.jsonl", "run/errors.jsonl"])
def test_the_same_for_one_of_several_files_and_for_dead_letters(backend: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path, "{label}-{status}.jsonl"))
        whole = path.read_bytes()
        path.write_bytes(whole + b"mine\n")
        with pytest.raises(Changed, match=f"byte {len(whole):,} is not what was written"):
            await SORTED.run(PROMPTS, journal=journal(tmp_path, "{label}-{status}.jsonl"))
        assert path.read_bytes() == whole + b"mine\n"

    on(backend, body)


def test_a_compressed_file_may_end_with_a_torn_member_of_the_lines_to_come_only(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    lines = [Line(1, b"one\n" * 20), Line(3, bytes(range(65, 91)) * 40), Line(4, b"three\n")]
    first = gzip.compress(lines[0].data, mtime=0)
    behind = gzip.compress(lines[1].data, mtime=0) + gzip.compress(lines[2].data, mtime=0)
    mark = Mark(len(first), 1)
    for end in range(len(behind) + 1):
        path.write_bytes(first + behind[:end])
        compare(str(path), mark, lines)
    for others, text in (
        (b"plain\n", "its compressed data is damaged before byte"),
        (gzip.compress(b"mine\n"), "unpacked byte 80 is not what was written"),
        (behind + gzip.compress(b"mine\n"), f"unpacked byte {80 + 26 * 40 + 6:,} is not what was written"),
    ):
        path.write_bytes(first + others)
        with pytest.raises(Changed, match=text):
            compare(str(path), mark, lines)
    compare(str(path), mark, lines, behind=False)


# -- two runs on one file -----------------------------------------------------------------------------------------


class Holding:
    """A sink beside the output that waits with the first record."""

    def __init__(self) -> None:
        self.begun = anyio.Event()
        self.go_on = anyio.Event()

    async def write(self, record: Record) -> None:
        self.begun.set()
        await self.go_on.wait()


NAMES = ("out.jsonl", "out.jsonl.gz", "{label}-{status}.jsonl")
KINDS = ("journal", "sink")


async def run_to(place: Path, name: str, mode: str, kind: str, number: int, holding: Holding | None = None) -> None:
    path = str(place / name)
    if kind == "journal":
        kept = Journal(place / f"run{number}", output=Output(path, mode))  # type: ignore[arg-type]
        await SORTED.run(PROMPTS, holding or Idle(), journal=kept)
        return
    sink = JsonlSink(path, mode=mode, label="kind_label")  # type: ignore[arg-type]
    if holding is None:
        await SORTED.run(PROMPTS, sink)
    else:
        async with sink.open() as out:
            await SORTED.run(PROMPTS, Both(out, holding))


class Idle:
    async def write(self, record: Record) -> None:
        del record


class Both:
    def __init__(self, *sinks: object) -> None:
        self.sinks = sinks

    async def write(self, record: Record) -> None:
        for sink in self.sinks:
            await sink.write(record)  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_a_second_run_on_an_output_is_refused_and_nothing_is_touched(
    backend: str, name: str, first: str, second: str, tmp_path: Path
) -> None:
    async def body() -> None:
        for mode in ("create", "append", "overwrite"):
            place = tmp_path / mode
            place.mkdir()
            holding = Holding()
            async with anyio.create_task_group() as tg:
                tg.start_soon(run_to, place, name, mode, first, 1, holding)
                await holding.begun.wait()
                before = bytes_of(place)
                for other in ("append", "overwrite"):
                    with pytest.raises(OutputLocked) as caught:
                        await run_to(place, name, other, second, 2)
                    assert str(caught.value) == f"{place / name}: another run is writing to it"
                after = bytes_of(place)
                assert {key: len(data) for key, data in after.items() if len(data) < len(before.get(key, b""))} == {}
                holding.go_on.set()
            count = sum(
                (gzip.decompress(data) if key.endswith(".gz") else data).count(b"\n")
                for key, data in bytes_of(place).items()
            )
            assert count == len(PROMPTS)
            assert not [key for key in bytes_of(place) if key.endswith(".lock")]
            await run_to(place, name, "append", second, 3)

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_dead_letters_in_a_file_of_ones_own_are_locked_too(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        path, errors = tmp_path / "out.jsonl", tmp_path / "errors.jsonl"
        errors.write_text("before\n")
        sink = DeadLetters(JsonlSink(str(path)), str(errors), mode="append")
        other = Journal(tmp_path / "run", output=tmp_path / "other.jsonl", errors=Output(errors, "overwrite"))
        async with sink.open():
            with pytest.raises(OutputLocked, match=r"errors\.jsonl: another run is writing to it"):
                await SORTED.run(PROMPTS, journal=other)
        assert errors.read_text() == "before\n"
        await SORTED.run(PROMPTS, journal=other)
        assert errors.read_bytes().count(b"\n") == 2

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_was_closed_for_others_and_was_written_to_meanwhile_ends_the_run(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.durability.outputs.files.OPEN", 1)

    class Meddling:
        async def write(self, record: Record) -> None:
            path = tmp_path / "low-ok.jsonl"
            if record.status == "failed" and path.exists():
                with path.open("ab") as file:
                    file.write(b"mine\n")

    async def body() -> None:
        one = Pipeline(SORTED.stage, max_in_flight=1, ordered=True)
        with pytest.raises(WriteError, match=r"low-ok\.jsonl: somebody else has written to it"):
            await one.run(PROMPTS, Meddling(), journal=journal(tmp_path, "{label}-{status}.jsonl"))
        assert b"mine\n" in (tmp_path / "low-ok.jsonl").read_bytes()

    on(backend, body)


# -- an output that is not what was written -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_output_that_is_gone_or_edited_is_written_anew_if_that_is_accepted(
    backend: str, finished: bool, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    calls: list[object] = []

    class Called:
        version = "1"

        def __call__(self, value: object) -> object:
            calls.append(value)
            return value

    pipe = Pipeline(map(Called(), name="call"), ordered=True)

    async def body() -> None:
        await pipe.run(PROMPTS if finished else PROMPTS[:4], journal=journal(tmp_path, name))
        path.unlink()
        with pytest.raises(Changed, match=r"is gone, .*; nothing was called; --accept-changes .* writes it anew$"):
            await pipe.run(PROMPTS, journal=journal(tmp_path, name))
        async with pipe.open(PROMPTS, journal=journal(tmp_path, name, accept_changes=True)) as run:
            said = run.recovered
            async for _ in run.results:
                pass
        assert said is not None
        assert said.files[0].endswith("; it is written anew")
        whole = path.read_bytes()
        assert len(calls) == len(PROMPTS)
        for number, edit in enumerate((b"edited\n", whole[:100], whole + b"more\n"), 1):
            path.write_bytes(edit)
            with pytest.raises(Changed, match=rf"--accept-changes .* keeps it as .*{name}\.edited and writes it anew$"):
                await pipe.run(PROMPTS, journal=journal(tmp_path, name))
            await pipe.run(PROMPTS, journal=journal(tmp_path, name, accept_changes=True))
            kept = tmp_path / (f"{name}.edited" if number == 1 else f"{name}.edited.{number}")
            assert kept.read_bytes() == edit
            unpack = gzip.decompress if name.endswith(".gz") else bytes
            assert unpack(path.read_bytes()) == unpack(whole)
        assert len(calls) == len(PROMPTS)

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("inside", [True, False], ids=["the run's lines", "what was there before"])
def test_what_was_there_before_the_run_stays_if_it_is_still_that(backend: str, inside: bool, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"before\n")

    async def body() -> None:
        kept = Journal(tmp_path / "run", output=Output(path, "append"))
        await SORTED.run(PROMPTS, journal=kept)
        lines = path.read_bytes()[7:]
        edited = b"before\n" + b"x" + lines[1:] if inside else b"BEFORE\n" + lines
        path.write_bytes(edited)
        await SORTED.run(PROMPTS, journal=Journal(tmp_path / "run", output=Output(path, "append"), accept_changes=True))
        assert path.read_bytes() == (b"before\n" + lines if inside else lines)
        assert (tmp_path / "out.jsonl.edited").read_bytes() == edited

    on(backend, body)


def test_a_name_that_is_taken_is_never_taken_again_and_the_same_file_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("one")
    (tmp_path / "x.edited").write_text("of somebody else")
    assert keep(str(path), EDITED, silent) == f"{path}.edited.2"
    assert keep(str(path), EDITED, silent) == f"{path}.edited.2"
    assert (tmp_path / "x.edited").read_text() == "of somebody else"


def test_a_file_system_without_links_has_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*names: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "x"
    path.write_text("one")
    assert keep(str(path), EDITED, silent) == f"{path}.edited"
    path.write_text("two")
    assert keep(str(path), EDITED, silent) == f"{path}.edited.2"
    assert bytes_of(tmp_path) == {"x": b"two", "x.edited": b"one", "x.edited.2": b"two"}


# -- lines that are taken back ------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


REBUILDING = ("keep", "kept", "write", "written", "sync", "rename", "renamed")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("point", [None, *REBUILDING])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_output_whose_answers_are_asked_for_again_is_kept_once(
    backend: str, point: str | None, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name

    def die(at: str) -> None:
        if at == f"rebuild:{point}":
            raise Killed

    async def body() -> None:
        await TALK.run(PROMPTS, journal=journal(tmp_path, name))
        before = path.read_bytes()
        again = Reopen(from_stage="say")
        if point is not None:
            with pytest.raises(BaseException) as caught:
                await TALK.run(PROMPTS, journal=journal(tmp_path, name, reopen=again, probe=die))
            assert caught.group_contains(Killed) if isinstance(caught.value, BaseExceptionGroup) else True
            again = Reopen()
        await TALK.run(PROMPTS, journal=journal(tmp_path, name, reopen=again))
        assert set(bytes_of(tmp_path)) == {name, f"{name}.old"}
        assert (tmp_path / f"{name}.old").read_bytes() == before
        unpack = gzip.decompress if name.endswith(".gz") else bytes
        assert unpack(path.read_bytes()) == unpack(before), "the answers were the same"
        async with TALK.open(PROMPTS, journal=journal(tmp_path, name, reopen=Reopen(from_stage="say"))) as run:
            said = run.recovered
            async for _ in run.results:
                pass
        assert said is not None
        assert said.files == (f"{path}: is kept as {path}.old.2, because records in it are made again",)

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("point", REBUILDING)
def test_an_edited_output_is_kept_once_though_the_process_dies_meanwhile(
    backend: str, point: str, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl.gz"

    def die(at: str) -> None:
        if at == f"rebuild:{point}":
            raise Killed

    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path, path.name))
        before = gzip.decompress(path.read_bytes())
        path.write_bytes(b"edited")
        with pytest.raises(BaseException):  # noqa: B017 - in a group or not
            await SORTED.run(PROMPTS, journal=journal(tmp_path, path.name, accept_changes=True, probe=die))
        await SORTED.run(PROMPTS, journal=journal(tmp_path, path.name, accept_changes=True))
        assert set(bytes_of(tmp_path)) == {path.name, f"{path.name}.edited"}
        assert (tmp_path / f"{path.name}.edited").read_bytes() == b"edited"
        assert gzip.decompress(path.read_bytes()) == before

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_failed_records_that_are_tried_again_leave_no_copy(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path))
        await SORTED.run(PROMPTS, journal=journal(tmp_path, reopen=Reopen(failed=True)))

    on(backend, body)
    assert set(bytes_of(tmp_path)) == {"out.jsonl"}
    assert all(mark.number != OUTDATED for mark in marks(tmp_path).values())


# -- what was never used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_sink_that_fails_before_its_first_record_leaves_no_file_it_made(
    backend: str, name: str, tmp_path: Path
) -> None:
    path, errors = tmp_path / name, tmp_path / "errors.jsonl"
    made: list[set[str]] = []

    async def failing(sink: Resource[Sink]) -> None:
        async with sink.open():
            made.append(set(bytes_of(tmp_path)))
            raise LookupError

    async def body() -> None:
        with pytest.raises(LookupError):
            await failing(DeadLetters(JsonlSink(str(path)), str(errors)))
        assert bytes_of(tmp_path) == {}
        path.write_bytes(b"")
        with pytest.raises(LookupError):
            await failing(JsonlSink(str(path), mode="append"))
        assert bytes_of(tmp_path) == {name: b""}, "it was there before"

    on(backend, body)
    assert made == [{name, "errors.jsonl"}, {name}]
