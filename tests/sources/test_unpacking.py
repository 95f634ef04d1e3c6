"""Compressed inputs are read as what was packed, a piece at a time, and damage is told with how far it was read."""

from __future__ import annotations

import gzip
import os
import random
import sys
import tracemalloc
import zlib
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import SourceError
from pipeline.core.record import Input
from stages.sources import Inputs
from stages.sources.unpacking import BadGzip, Gunzip
from tests.sources.reading import blocks

members = st.lists(st.one_of(st.binary(max_size=300), st.integers(0, 5000).map(lambda n: b"x" * n)), max_size=4)


def unpack(pieces: list[bytes], most: int) -> tuple[bytes, str | None]:
    """What comes out, in pieces that are never longer than `most`, and what is wrong."""
    packed, out = Gunzip(most), b""
    try:
        for piece in pieces:
            packed.feed(piece)
            while block := packed.take():
                assert len(block) <= most
                out += block
        packed.finish()
    except BadGzip as error:
        return out, str(error)
    return out, None


@given(members=members, cuts=st.lists(st.integers(0, 5000), max_size=6), most=st.sampled_from([1, 7, 1000, 65536]))
def test_a_stream_cut_anywhere_is_unpacked_to_the_same(members: list[bytes], cuts: list[int], most: int) -> None:
    data = b"".join(map(gzip.compress, members or [b""]))
    assert unpack(blocks(data, cuts), most) == (b"".join(members), None)
    assert unpack([*blocks(data, cuts), b"\0" * 20, b"\0"], most) == (b"".join(members), None)


@given(members=members.filter(bool), end=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 5000), max_size=3))
def test_a_stream_that_ends_anywhere_gives_a_start_of_what_was_packed_and_says_that_it_ended(
    members: list[bytes], end: int, cuts: list[int]
) -> None:
    packed = [gzip.compress(member) for member in members]
    data = b"".join(packed)
    end %= len(data)
    out, wrong = unpack(blocks(data[:end], cuts), 1000)
    assert b"".join(members).startswith(out)
    whole = {sum(map(len, packed[:number])) for number in range(1, len(packed))}
    if end in whole:
        assert wrong is None
    else:
        assert wrong == f"the compressed data ends too early, after {end:,} bytes, {len(out):,} unpacked"


@given(text=st.binary(min_size=1, max_size=200), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed_or_changes_nothing(text: bytes, at: int, bit: int) -> None:
    data = bytearray(gzip.compress(text, mtime=0))
    data[at % len(data)] ^= 1 << bit
    out, wrong = unpack([bytes(data)], 1000)
    assert wrong is not None or out == text


def test_damage_is_told_with_how_far_it_was_read() -> None:
    data = gzip.compress(b"one\n")
    assert unpack([data + b"more"], 9) == (
        b"one\n",
        f"the compressed data is damaged (incorrect header check), after {len(data)} bytes, 4 unpacked",
    )
    wrong = f"the compressed data is damaged (incorrect data check), after {len(data) - 8} bytes, 4 unpacked"
    assert unpack([data[:-8], b"\0" * 8], 9) == (b"one\n", wrong)
    # What comes out together with the fault is not trusted.
    wrong = "the compressed data is damaged (incorrect data check), after 0 bytes, 0 unpacked"
    assert unpack([data[:-8] + b"\0" * 8], 9) == (b"", wrong)


def test_a_bomb_is_held_in_pieces() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    data = b"".join(bomb.compress(b"\n" * 1_000_000) for _ in range(100)) + bomb.flush()
    packed, total = Gunzip(65536), 0
    packed.feed(data)
    tracemalloc.start()
    while block := packed.take():
        total += len(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 100_000_000
    assert peak < 1_000_000


async def read(inputs: Inputs) -> list[Input]:
    async with inputs.open() as records:
        return [record async for record in records]


async def test_the_name_without_gz_says_the_format_and_the_beginning_says_that_it_is_packed(tmp_path: Path) -> None:
    files = {
        "a.txt.gz": b'{"prompt":"text"}\n',
        "b.jsonl.GZ": b'"line"\n',
        "c.csv.gz": b"prompt\ncell\n",
        "d": b'{"prompt":"guessed"}\n',
        "e.txt": b"renamed\n",
        "f.gz": gzip.compress(b"")[:0] + b"no format\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(gzip.compress(data))
    records = await read(Inputs(tuple(str(tmp_path / name) for name in files)))
    prompts = ['{"prompt":"text"}', "line", "cell", "guessed", "renamed", "no format"]
    assert [record.prompt for record in records] == prompts


async def test_what_is_not_gzip_though_its_name_says_so_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(b"text\n")
    (tmp_path / "b.gz").write_bytes(b"")
    (tmp_path / "c.gz").write_bytes(b"\x1f\x8b\x08nonsense")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"a,a\n1,2\n"))
    paths = [str(tmp_path / name) for name in ("a.gz", "b.gz", "c.gz", "d.csv.gz")]
    with pytest.raises(SourceError) as caught:
        await read(Inputs(tuple(paths)))
    lines = str(caught.value).split("\n")
    assert lines[:2] == [
        f"{paths[0]}: is not gzip, whatever its name says; give it another name, or make it again",
        f"{paths[1]}: is empty; give it another name, or make it again",
    ]
    assert lines[2].startswith(f"{paths[2]}: the compressed data is damaged (")
    assert lines[3] == f"{paths[3]}: columns 1 and 2 of the header are both named 'a'"


async def test_records_before_the_damage_are_kept(tmp_path: Path) -> None:
    words = random.Random(1)
    lines = [f"line {words.random()}" for _ in range(10_000)]
    data = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data[:-5])
    async with Inputs((str(path),)).open() as records:
        got = [(await anext(records)).prompt for _ in range(9_999)]
        with pytest.raises(SourceError) as caught:
            await anext(records)
        assert records.statistics().bytes == len(data) - 5
    assert got == lines[:-1]  # the last one may be torn
    size = sum(map(len, lines)) + len(lines) - 1
    assert str(caught.value) == (
        f"{path}: the compressed data ends too early, after {len(data) - 5:,} bytes, {size:,} unpacked; "
        "the records up to there were read"
    )


async def test_a_compressed_stdin_gives_its_records_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    packer = zlib.compressobj(wbits=31)
    with os.fdopen(reading) as file:
        monkeypatch.setattr(sys, "stdin", file)
        async with Inputs().open() as records:
            first = packer.compress(b"one\ntw") + packer.flush(zlib.Z_SYNC_FLUSH)
            os.write(writing, first[:1])
            with anyio.move_on_after(0.01):
                await anext(records)
            os.write(writing, first[1:])
            assert (await anext(records)).prompt == "one"
            os.write(writing, packer.compress(b"o\n") + packer.flush())
            os.close(writing)
            assert [record.prompt async for record in records] == ["two"]
