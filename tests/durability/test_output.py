"""The files that are made of a journal: each record once, and after a resume what an uninterrupted run would have
written, or a refusal that says where they differ."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from pipeline.core.errors import DefinitionError, JournalError, SinkError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.targets import LONGEST, Names, safe
from pipeline.core.usage import Usage
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.journal import FILE, Journal
from pipeline.durability.outputs import files
from pipeline.durability.outputs.comparing import Changed, compare
from pipeline.durability.outputs.output import Line, Output
from pipeline.durability.outputs.projection import TAKEN_BACK, Mark
from stages import agent, map, route
from stages.models import resolve
from stages.sinks import JsonlSink, RawSink

BACKENDS = ("asyncio", "trio")
PROMPTS = [f"p{number}" for number in range(12)]


def third(value: object) -> str:
    number = int(str(value)[1:]) % 3
    if number == 2:
        raise ValueError("a third of them")
    return ("even/../odd", "plain")[number]


PLAIN = Pipeline(map(str.upper, name="up"), max_in_flight=4, ordered=True)
SORTED = Pipeline(
    route({"even/../odd": map(str.upper, name="up"), "plain": map(str.lower, name="low")}, by=third, name="kind"),
    max_in_flight=4,
    ordered=True,
)
TALK = Pipeline(agent("say", model=resolve("sim/default", latency=0)), max_in_flight=4)


def on(backend: str, body: Callable[[], Awaitable[object]]) -> None:
    anyio.run(body, backend=backend)


def journal(place: Path, output: str | None = "out.jsonl", **options: object) -> Journal:
    return Journal(place / "run", output=None if output is None else place / output, **options)  # type: ignore[arg-type]


def contents(place: Path) -> dict[str, bytes]:
    """Every output, by name, unpacked."""
    found = {path for path in place.rglob("*") if path.is_file() and "run" not in path.relative_to(place).parts}
    return {
        str(path.relative_to(place)): gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for path in found
    }


class Taken:
    """A sink that only hears."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def write(self, record: Record) -> None:
        self.ids.append(record.id)


async def whole(place: Path) -> bytes:
    """What a run without a journal writes."""
    await PLAIN.run(PROMPTS, JsonlSink(str(place)))
    return Path(place).read_bytes()  # noqa: ASYNC240 - a small file of a test


# -- writing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_journal_writes_its_output_without_a_sink_and_a_sink_only_hears(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        statistics = await PLAIN.run(PROMPTS, journal=journal(tmp_path))
        assert statistics.window.settled["ok"] == len(PROMPTS)
        heard = Taken()
        await PLAIN.run(PROMPTS, heard, journal=Journal(tmp_path / "run2", output=tmp_path / "two.jsonl"))
        assert len(heard.ids) == len(PROMPTS)
        lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
        assert [b'"output":"%s"' % prompt.upper().encode() in line for prompt, line in zip(PROMPTS, lines, strict=True)]
        assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_with_neither_sink_nor_output_is_refused(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        for given in (None, Journal(tmp_path / "run")):
            with pytest.raises(TypeError, match="a run writes to a sink, or has a journal with an output"):
                await PLAIN.run(PROMPTS, journal=given)

    on(backend, body)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kept", [True, False], ids=["journal", "no journal"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_records_are_sorted_into_files_by_label_and_status(
    backend: str, kept: bool, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pipeline.durability.outputs.files", "stages.sinks.several"):
        monkeypatch.setattr(f"{module}.OPEN", 1)
    name = f"by/{{label}}-{{status}}.jsonl{end}"
    (tmp_path / "by").mkdir()

    async def body() -> None:
        if kept:
            await SORTED.run(PROMPTS, journal=journal(tmp_path, name))
        else:
            await SORTED.run(PROMPTS, JsonlSink(str(tmp_path / name), label="kind_label"))

    on(backend, body)
    found = {name: text.count(b"\n") for name, text in contents(tmp_path).items()}
    odd = f"by/even%2F..%2Fodd-ok.jsonl{end}"
    assert found == {odd: 4, f"by/plain-ok.jsonl{end}": 4, f"by/none-failed.jsonl{end}": 4}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_label_may_be_a_directory(backend: str, tmp_path: Path) -> None:
    on(backend, lambda: SORTED.run(PROMPTS, journal=journal(tmp_path, "{label}/{status}.jsonl")))
    assert set(contents(tmp_path)) == {"even%2F..%2Fodd/ok.jsonl", "plain/ok.jsonl", "none/failed.jsonl"}


def test_a_name_with_a_label_needs_one(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="output: no record has a label for"):
        on("asyncio", lambda: PLAIN.run(PROMPTS, journal=journal(tmp_path, "{label}.jsonl")))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DefinitionError, match=r"label: '\{label\}' needs a label"):
        JsonlSink("{label}")
    with pytest.raises(DefinitionError, match="mode: there is no mode 'clobber'"):
        Output("x", "clobber")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("billing", "billing"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".", "%2E"),
        ("..", "%2E."),
        ("", "%"),
        ("%", "%25"),
        ("a b\x00\n", "a%20b%00%0A"),
        ("Größe", "Größe"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_a_label_is_no_path(label: str, name: str) -> None:
    assert safe(label) == name
    assert "/" not in safe(label)


def test_long_labels_are_cut_and_stay_different() -> None:
    one, other = safe("ä" * 500), safe("ä" * 501)
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= LONGEST


def test_other_braces_in_a_name_are_themselves(tmp_path: Path) -> None:
    record = Record("a", 0, "ok", "x", {}, None, Usage(), None, "p")
    names = Names(str(tmp_path / "{other}" / "{status}.jsonl"))
    assert (names.target(record), names.base) == ("ok.jsonl", str(tmp_path / "{other}"))
    assert names.file("ok.jsonl") == str(tmp_path / "{other}" / "ok.jsonl")
    assert Names("{status}", plain=True).target(record) == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bytes_are_those_of_render(backend: str, tmp_path: Path) -> None:
    sinks = (RawSink(str(tmp_path / "raw")), JsonlSink(str(tmp_path / "short"), detail="minimal"))

    async def body() -> None:
        for sink in sinks:
            await SORTED.run(PROMPTS, sink)
            await SORTED.run(
                PROMPTS, journal=Journal(f"{sink.path}.run", render=sink.render, output=f"{sink.path}.kept")
            )

    on(backend, body)
    for sink in sinks:  # a run without a journal numbers its records
        one, other = (re.sub(rb'"id":"[^"]*"', b"", Path(sink.path + end).read_bytes()) for end in ("", ".kept"))
        assert one == other
        assert one


# -- refusing before anything is begun ------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_would_destroy_something_is_refused_before_any_call(backend: str, tmp_path: Path) -> None:
    precious = tmp_path / "a.jsonl"
    precious.write_text("precious\n")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "x")
    os.mkfifo(tmp_path / "fifo")
    calls: list[object] = []
    pipe = Pipeline(map(calls.append, name="call"))
    cases = [
        (Output(precious), f"{precious}: exists; add to it (--append), replace it (--overwrite), or name another file"),
        (
            Output(tmp_path / "{status}.jsonl"),
            f"{tmp_path}/ok.jsonl: exists; add to it (--append), replace it (--overwrite), or name another file",
        ),
        (
            Output(precious, "overwrite", (str(precious),)),
            f"{precious}: is the input {precious}; write to another file",
        ),
        (Output(tmp_path), f"{tmp_path}: is a directory; name a file in it, such as {tmp_path}/out.jsonl"),
        (Output(tmp_path / "no" / "out"), f"{tmp_path}/no/out: the directory {tmp_path}/no does not exist"),
        (
            Output(tmp_path / "fifo"),
            f"{tmp_path}/fifo: is no regular file, so it cannot be made of a journal; write to it with a sink",
        ),
    ]
    (tmp_path / "ok.jsonl").write_text("")

    async def body() -> None:
        for output, text in cases:
            with pytest.raises(SinkError) as caught:
                await pipe.run(PROMPTS, journal=Journal(tmp_path / "run", output=output))
            assert str(caught.value) == text

    on(backend, body)
    assert (calls, precious.read_text()) == ([], "precious\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_output_is_appended_to_or_replaced_as_asked(backend: str, tmp_path: Path) -> None:
    old, new, packed = tmp_path / "old", tmp_path / "new", tmp_path / "old.gz"
    old.write_bytes(b"kept")
    new.write_bytes(b"replaced\n" * 100)
    packed.write_bytes(gzip.compress(b"kept\n"))

    async def body() -> None:
        for name, output in (
            ("a", Output(old, "append")),
            ("b", Output(new, "overwrite")),
            ("c", Output(packed, "append")),
        ):
            await PLAIN.run(PROMPTS[:6], journal=Journal(tmp_path / "runs" / name, output=output))
            await PLAIN.run(PROMPTS, journal=Journal(tmp_path / "runs" / name, output=output))

    on(backend, body)
    assert old.read_bytes() == b"kept\n" + new.read_bytes()
    assert gzip.decompress(packed.read_bytes()) == old.read_bytes()
    assert new.read_bytes().count(b"\n") == len(PROMPTS)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_journal_keeps_to_its_output(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        await PLAIN.run(PROMPTS, journal=journal(tmp_path))
        for other in (None, "other.jsonl"):
            with pytest.raises(JournalError, match=r"its records go to .*/out\.jsonl"):
                await PLAIN.collect(PROMPTS, journal=journal(tmp_path, other))
        await PLAIN.collect(PROMPTS, journal=Journal(tmp_path / "late"))
        with pytest.raises(JournalError, match="its records were not sorted into files"):
            await PLAIN.run(PROMPTS, journal=Journal(tmp_path / "late", output=tmp_path / "{status}"))
        await PLAIN.run(PROMPTS, journal=Journal(tmp_path / "late", output=tmp_path / "late.jsonl"))
        assert (tmp_path / "late.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()

    on(backend, body)


# -- resuming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_file_is_cut_back_and_made_up_byte_for_byte(backend: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name

    async def body() -> None:
        await PLAIN.run(PROMPTS[:6], journal=journal(tmp_path, name))
        store = Store.open(tmp_path / "run" / FILE, "power", silent)
        store.change(Mark().row("output"))  # as if nothing of it had been synced
        store.close(fold=True)
        path.write_bytes(path.read_bytes()[:-10])
        await PLAIN.run(PROMPTS, journal=journal(tmp_path, name))
        await PLAIN.run(PROMPTS, journal=Journal(tmp_path / "run2", output=tmp_path / "whole.jsonl"))

    on(backend, body)
    found = contents(tmp_path)
    assert found[name] == found["whole.jsonl"]


EDITS: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "a byte": (lambda data: data[:700] + bytes([data[700] ^ 1]) + data[701:], "was changed: byte 700 is not"),
    "the first byte": (lambda data: b"[" + data[1:], "was changed: byte 0 is not"),
    "a line": (lambda data: data[data.index(b"\n") + 1 :] + b"x" * data.index(b"\n") + b"\n", "was changed: byte"),
    "the end": (lambda data: data[:-1], "is cut at byte"),
    "all": (lambda data: b"", "is cut at byte 0"),
    "gone": (lambda data: None, "is gone, and"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("edit", EDITS)
def test_a_file_that_was_changed_is_refused_before_any_call(backend: str, edit: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    change, text = EDITS[edit]
    calls: list[object] = []

    class Called:
        version = "1"  # or what it has called would make it another function, and that would be what is refused

        def __call__(self, value: object) -> object:
            calls.append(value)
            return value

    pipe = Pipeline(map(Called(), name="call"))

    async def body() -> None:
        await pipe.run(PROMPTS[:6], journal=journal(tmp_path))
        data = change(path.read_bytes())
        path.unlink() if data is None else path.write_bytes(data)
        before = len(calls)
        with pytest.raises(Changed) as caught:
            await pipe.run(PROMPTS, journal=journal(tmp_path))
        assert text in str(caught.value)
        assert str(caught.value).startswith(f"{path}: ")
        assert "; nothing was called; --accept-changes (accept_changes=True) " in str(caught.value)
        assert len(calls) == before
        assert (path.read_bytes() if path.exists() else None) == data, "it is left as it is"

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_there_before_the_run_is_held_to_what_it_was(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"kept\n")

    async def body() -> None:
        await PLAIN.run(PROMPTS[:3], journal=Journal(tmp_path / "run", output=Output(path, "append")))
        path.write_bytes(b"keqt\n" + path.read_bytes()[5:])
        with pytest.raises(Changed, match="was changed within its first 5 bytes"):
            await PLAIN.run(PROMPTS, journal=Journal(tmp_path / "run", output=Output(path, "append")))

    on(backend, body)


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_compressed_data_that_is_damaged_is_told(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    lines = [Line(1, b"one\n" * 20), Line(2, b"two\n" * 20)]
    members = [gzip.compress(line.data, mtime=0) for line in lines]
    data = b"".join(members)
    path.write_bytes(data)
    compare(str(path), Mark(len(data), 2), lines)
    compare(str(path), Mark(len(members[0]), 1), lines)
    for damaged, text in (
        (data[:cut] + bytes([data[cut] ^ 0x55]) + data[cut + 1 :], "was changed"),
        (gzip.compress(lines[0].data.replace(b"o", b"0"), mtime=0).ljust(len(data), b"\0"), "was changed"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(Changed, match=text):
            compare(str(path), Mark(len(data), 2), lines)
    path.write_bytes(data)
    with pytest.raises(Changed, match="its compressed data does not end at byte"):
        compare(str(path), Mark(len(data) - 3, 2), lines)
    with pytest.raises(Changed, match="unpacked byte 80 is not what was written"):
        compare(str(path), Mark(len(data), 2), lines[:1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "{status}.jsonl"])
def test_files_are_made_anew_when_lines_were_taken_back(backend: str, name: str, tmp_path: Path) -> None:
    before: dict[str, bytes] = {}

    async def body() -> None:
        await SORTED.run(PROMPTS, journal=journal(tmp_path, name))
        before.update(contents(tmp_path))
        store = Store.open(tmp_path / "run" / FILE, "power", silent)
        store.change(TAKEN_BACK, ("DELETE FROM line WHERE number = 5", ()), ("DELETE FROM settled WHERE root = 5", ()))
        store.close(fold=True)
        await SORTED.run(PROMPTS, journal=journal(tmp_path, name))

    on(backend, body)
    after = contents(tmp_path)
    assert after.keys() == before.keys(), "nothing is left beside them"
    assert {key: sorted(text.splitlines()) for key, text in after.items()} == {
        key: sorted(text.splitlines()) for key, text in before.items()
    }
    assert after != before, "the record that was done again is the last one"


# -- what the consumer takes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_records_that_nobody_took_come_first_in_the_next_run(backend: str, count: int, tmp_path: Path) -> None:
    async def body() -> None:
        first: list[Record] = []
        async with TALK.open(PROMPTS, journal=Journal(tmp_path)) as run:
            async for record in run.results:
                first.append(record)
                if len(first) >= count:
                    break
        del first[count:]
        if not count:
            return
        second = await TALK.collect(PROMPTS, journal=Journal(tmp_path))
        assert sorted(record.id for record in (*first, *second)) == sorted({record.id for record in (*first, *second)})
        assert len(first) + len(second) == len(PROMPTS)
        third = await TALK.collect(PROMPTS, journal=Journal(tmp_path))
        assert third == []

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_record_whose_consumer_failed_comes_again_just_as_it_was(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        lost: list[Record] = []

        async def fail() -> None:
            async with TALK.open(PROMPTS, journal=Journal(tmp_path)) as run:
                async for record in run.results:
                    lost.append(record)
                    if len(lost) == 3:
                        raise LookupError

        with pytest.raises(LookupError):
            await fail()
        again = await TALK.collect(PROMPTS, journal=Journal(tmp_path))
        assert again[0] == lost[2]
        assert len(again) == len(PROMPTS) - 2

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sink_that_failed_is_given_the_record_again(backend: str, tmp_path: Path) -> None:
    class Failing(Taken):
        async def write(self, record: Record) -> None:
            if len(self.ids) == 4:
                raise LookupError("the table is locked")
            await super().write(record)

    async def body() -> None:
        first, second = Failing(), Taken()
        with pytest.raises(LookupError):
            await TALK.run(PROMPTS, first, journal=Journal(tmp_path))
        await TALK.run(PROMPTS, second, journal=Journal(tmp_path))
        assert sorted(first.ids + second.ids) == sorted(set(first.ids + second.ids))
        assert len(first.ids + second.ids) == len(PROMPTS)

    on(backend, body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_files_are_open_a_few_at_a_time(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OPEN", 2)
    most = 0

    def watch(point: str) -> None:
        nonlocal most
        names = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        most = max(most, sum(name.startswith(str(tmp_path / "by")) and name.endswith(".jsonl") for name in names))

    (tmp_path / "by").mkdir()
    name = "by/{label}-{status}.jsonl"
    on(backend, lambda: SORTED.run(PROMPTS, journal=journal(tmp_path, name, probe=watch)))
    assert most == 2
    assert sum(text.count(b"\n") for text in contents(tmp_path).values()) == len(PROMPTS)
