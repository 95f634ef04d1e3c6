"""Files and stdin are read in order, a block at a time, and faults of files are told before the first record."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pipeline.core.errors import DefinitionError, SourceError
from pipeline.core.record import Input
from stages.sources import Inputs, InputStatistics
from stages.sources.blocks import BlockReader


async def read(inputs: Inputs) -> list[Input]:
    async with inputs.open() as records:
        return [record async for record in records]


async def prompts(inputs: Inputs) -> list[object]:
    return [record.prompt if record.defect is None else record.defect.message for record in await read(inputs)]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Put a pipe in the place of stdin, and give the end to write to."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield writing
    try:
        os.close(writing)
    except OSError:
        pass


async def test_inputs_are_read_one_after_the_other_each_in_its_own_format(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b.jsonl").write_bytes(b'{"id":"r","question":"three","x":1}\n"four"\n')
    (tmp_path / "c.csv").write_bytes(b'text,n\n"fi\nve",5\n')
    (tmp_path / "empty.txt").write_bytes(b"")
    paths = tuple(str(tmp_path / name) for name in ("a.txt", "empty.txt", "b.jsonl", "c.csv"))
    records = await read(Inputs(paths))
    assert [record.prompt for record in records] == ["one", "two", "three", "four", "fi\nve"]
    assert records[2].id == "r"
    assert records[2].fields == records[2].value == {"id": "r", "question": "three", "x": 1}
    assert records[4].fields == {"text": "fi\nve", "n": "5"}


async def test_a_definition_can_be_opened_twice_and_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\nx\n")
    inputs = Inputs((str(tmp_path / "a.txt"),))
    first = await read(inputs)
    assert await read(inputs) == first
    assert first[1].id == f"{first[0].id}#2"


async def test_a_bad_line_is_a_record_with_a_defect_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt":"a"}\n{"prompt":}\n{"id":"i","prompt":"b"}\n{"id":"i","prompt":"c"}\n{"prompt":"d"}')
    records = await read(Inputs((str(path),)))
    assert [record.defect.message if record.defect else record.prompt for record in records] == [
        "a",
        f"{path}, line 2, column 11, byte 25: not JSON: unexpected character, expected a JSON value",
        "b",
        f"{path}, line 4: id 'i' was given before, by {path}, line 3",
        "d",
    ]
    assert records[1].value == '{"prompt":}'
    assert len({record.id for record in records}) == 5


async def test_every_faulty_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "ok.txt").write_text("fine")
    (tmp_path / "wide.txt").write_bytes("hello".encode("utf-16"))
    (tmp_path / "a.csv").write_text("a,a\n1,2\n")
    (tmp_path / "no.txt").write_text("secret")
    (tmp_path / "no.txt").chmod(0)
    names = ["ok.txt", "gone.txt", "wide.txt", "a.csv", "."] + ([] if os.geteuid() == 0 else ["no.txt"])
    paths = [str(tmp_path / name) for name in names]
    with pytest.raises(SourceError) as caught:
        await read(Inputs(tuple(paths)))
    lines = str(caught.value).split("\n")
    assert lines[:4] == [
        f"{paths[1]}: no such file",
        f"{paths[2]}: this is UTF-16 or UTF-32; convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 {paths[2]}",
        f"{paths[3]}: columns 1 and 2 of the header are both named 'a'",
        f"{paths[4]}: is a directory; name its files, such as {paths[4]}/*.txt",
    ]
    assert lines[4:] == ([] if os.geteuid() == 0 else [f"{paths[5]}: permission denied"])


async def test_the_limit_ends_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    path = str(tmp_path / "a.txt")
    for limit, expected in ((0, []), (2, ["1", "2"]), (9, ["1", "2", "3"]), (None, ["1", "2", "3"])):
        assert await prompts(Inputs((path,), limit=limit)) == expected


async def test_what_was_read_is_counted_and_what_was_guessed_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"question":"q"}\n\n{"question":"r"}\nx\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"a":1}\n')
    said: list[str] = []
    paths = (str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"))
    async with Inputs(paths, notice=said.append).open() as records:
        assert records.statistics() == InputStatistics(0, 0, 0, 0)
        assert len([record async for record in records]) == 4
        assert records.statistics() == InputStatistics(4, 1, 1, 45)
    assert said == [
        f"{paths[0]}: the prompt is the field 'question'",
        f"{paths[0]}: 1 blank line skipped",
        f"{paths[1]}: no field looks like a prompt; it has a: --field names the one",
    ]


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b'{"prompt":3}', "the field 'prompt' is the number 3, a prompt is text"),
        (b'{"n":"1","input":{"a":1}}', "the field 'input' is an object, a prompt is text"),
        (b'{"prompt":null,"note":"n"}', "no field looks like a prompt; it has prompt, note: --field names the one"),
        (b"{}", "no field looks like a prompt; it has no fields: --field names the one"),
    ],
)
async def test_records_without_a_prompt_are_told_of_with_the_reason(record: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(record + b"\n" + record + b"\n")
    said: list[str] = []
    async with Inputs((str(path),), notice=said.append).open() as records:
        assert [each.defect async for each in records] == [None, None]
    assert said == [f"{path}: {why}"]


async def test_the_columns_of_a_table_without_a_prompt_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("name,city\nAda,London\n")
    said: list[str] = []
    async with Inputs((str(path),), notice=said.append).open() as records:
        assert len([record async for record in records]) == 1
    assert said == [f"{path}: no field looks like a prompt; it has name, city: --field names the one"]


@pytest.mark.parametrize(
    ("line", "format", "like"),
    [
        ("id,prompt", "auto", "CSV, which --input-format csv"),
        ('"question","answer key"', "auto", "CSV, which --input-format csv"),
        ("id\ttext", "auto", "TSV, which --input-format tsv"),
        ("id,prompt", "text", None),
        ("text me, please", "auto", None),
        ("text, please", "auto", None),
        ("name,city", "auto", None),
        ("prompt", "auto", None),
    ],
)
async def test_text_that_looks_like_a_table_is_told_of_unless_text_was_asked_for(
    line: str, format: Literal["auto", "text"], like: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_text(f"{line}\n1\n")
    said: list[str] = []
    async with Inputs((str(path),), format, notice=said.append).open() as records:
        assert [record.value async for record in records] == [line, "1"]
    assert said == ([] if like is None else [f"{path}: read as text lines; it looks like {like} reads"])


async def test_lines_in_braces_that_are_not_json_are_told_how_to_be_prompts(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{x} y\n{"prompt":"p"}\n{x}\n')
    (tmp_path / "a.jsonl").write_text("{x} y\n")
    paths = (str(tmp_path / "a"), str(tmp_path / "a.jsonl"))
    async with Inputs(paths).open() as records:
        defects = [record.defect.message if record.defect else None async for record in records]
    reason = "not JSON: unexpected character, expected a string key"
    assert defects == [
        f"{paths[0]}, line 1, column 2, byte 1: {reason}; if lines are prompts: --input-format text",
        None,
        f"{paths[0]}, line 3, column 2, byte 22: {reason}",
        f"{paths[1]}, line 1, column 2, byte 1: {reason}",
    ]


async def test_stdin_that_is_a_file_is_read_and_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    with (tmp_path / "a").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert await prompts(Inputs(("-",))) == ["one", "two"]
        os.fstat(file.fileno())


async def test_the_null_device_is_an_empty_input() -> None:
    assert await prompts(Inputs((os.devnull,))) == []


async def test_stdin_needs_only_its_first_line_to_be_recognised(stdin: int) -> None:
    async with Inputs().open() as records:
        os.write(stdin, b'\n{"prompt":"first"}\n')
        assert (await anext(records)).prompt == "first"
        os.write(stdin, b'{"prompt":"sec')
        os.write(stdin, b'ond"}')
        os.close(stdin)
        assert (await anext(records)).prompt == "second"
        with pytest.raises(StopAsyncIteration):
            await anext(records)


async def test_text_on_stdin_without_a_line_end_is_a_prompt(stdin: int) -> None:
    os.write(stdin, b"{only")
    os.close(stdin)
    assert await prompts(Inputs(format="text")) == ["{only"]


async def test_a_wait_for_a_pipe_is_cancelled_at_once_and_loses_nothing(stdin: int) -> None:
    async with Inputs().open() as records:
        with anyio.move_on_after(0) as scope:
            await anext(records)
        assert scope.cancelled_caught
        os.write(stdin, b"kept\n")
        assert (await anext(records)).prompt == "kept"


@pytest.mark.parametrize("blocking", [True, False])
async def test_the_blocking_mode_of_a_pipe_does_not_matter_and_is_left_alone(stdin: int, blocking: bool) -> None:
    fd = sys.stdin.fileno()
    os.set_blocking(fd, blocking)
    received: list[str | None] = []

    async def reader() -> None:
        async with Inputs().open() as records:
            received.extend([record.prompt async for record in records])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        for line in (b"one\n", b"two\n"):
            await anyio.wait_all_tasks_blocked()
            os.write(stdin, line)
        await anyio.wait_all_tasks_blocked()
        os.close(stdin)
    assert received == ["one", "two"]
    assert os.get_blocking(fd) is blocking


async def test_no_more_than_one_block_is_read_ahead(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x\n" * 200_000)
    async with Inputs((str(tmp_path / "a.txt"),)).open() as records:
        for _ in range(32_768):
            await anext(records)
        assert records.statistics().bytes == 65_536
        await anext(records)
        assert records.statistics().bytes == 131_072


async def test_a_named_pipe_waits_for_its_writer_without_holding_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    received: list[object] = []

    async def reader() -> None:
        received.extend(await prompts(Inputs((str(path),))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader)
        writer = None
        while writer is None:
            await checkpoint()
            try:
                writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                continue
        os.write(writer, b"through\n")
        os.close(writer)
    assert received == ["through"]


@pytest.mark.parametrize("replacement", [None, io.StringIO("x")])
async def test_a_stdin_that_cannot_be_read_is_told(replacement: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", replacement)
    with pytest.raises(SourceError, match=r"stdin is closed"):
        await read(Inputs())


async def test_stdin_is_named_once(stdin: int) -> None:
    with pytest.raises(SourceError, match="more than once"):
        await read(Inputs(("-", "-")))


async def test_a_file_that_fails_while_it_is_read_is_a_source_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: BlockReader) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setattr(BlockReader, "read", fail)
    with pytest.raises(SourceError, match=r"a\.txt: reading failed: Input/output error"):
        await read(Inputs((str(tmp_path / "a.txt"),)))


def test_a_definition_that_cannot_be_is_refused_with_every_problem() -> None:
    with pytest.raises(DefinitionError) as caught:
        Inputs((), format="xml", limit=-1, max_record_bytes=0)
    assert str(caught.value).split("\n") == [
        "pipeline, paths: no input is named ('-' is stdin)",
        "pipeline, format: there is no input format 'xml' (formats are auto, text, nul, jsonl, csv, tsv)",
        "pipeline, limit: cannot be -1 (a number of records, or none)",
        "pipeline, max_record_bytes: cannot be 0 (bytes, at least 1)",
    ]
