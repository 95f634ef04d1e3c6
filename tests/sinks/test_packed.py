"""Compressed outputs: what is out can be unpacked at any time, and a second run adds to the first."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipeline.core.errors import SinkError, WriteError
from pipeline.core.record import Record
from pipeline.core.usage import Usage
from stages.sinks import JsonlSink, RawSink


def record(text: str) -> Record:
    return Record(text, 0, "ok", text, {}, None, Usage(), None, text)


async def test_what_was_packed_can_be_unpacked_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.gz"
    async with RawSink(str(path)).open() as sink:
        await sink.write(record("one"))
        monkeypatch.setattr("stages.sinks.packed.EVERY", 0.0)
        await sink.write(record("two"))
        assert gzip.decompress(path.read_bytes()) == b"one\ntwo\n"
        monkeypatch.setattr("stages.sinks.packed.EVERY", 1e9)
        await sink.write(record("three"))
        assert gzip.decompress(path.read_bytes()) == b"one\ntwo\n", "what comes together is packed together"
        monkeypatch.setattr("stages.sinks.packed.MUCH", 10)
        await sink.write(record("four"))
        assert gzip.decompress(path.read_bytes()) == b"one\ntwo\nthree\nfour\n"
        await sink.write(record("five"))
    assert gzip.decompress(path.read_bytes()) == b"one\ntwo\nthree\nfour\nfive\n"


async def test_members_are_added_to_a_file_that_is_appended_to(tmp_path: Path) -> None:
    path = str(tmp_path / "out.gz")
    for text in ("one", "two"):
        async with RawSink(path, mode="append").open() as sink:
            await sink.write(record(text))
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == b"one\ntwo\n"


async def test_a_full_disk_is_told_at_the_latest_at_the_end() -> None:
    with pytest.raises(WriteError, match="no space left on device"):
        async with RawSink("/dev/full").open() as sink:
            await sink.write(record("one"))


async def test_text_that_is_no_record_has_no_file_of_several(tmp_path: Path) -> None:
    async with JsonlSink(str(tmp_path / "{status}")).open() as sink:
        with pytest.raises(SinkError, match="text that is no record has no label and no status"):
            await sink.text("piece")
        await sink.write(record("one"))
        assert (sink.lines, (tmp_path / "ok").read_bytes().count(b"\n")) == (1, 1)
    with pytest.raises(SinkError, match="ok: exists; add to it"):
        async with JsonlSink(str(tmp_path / "{status}")).open():
            pass
    with pytest.raises(SinkError, match=r"the directory .* does not exist"):
        async with JsonlSink(str(tmp_path / "no" / "{status}")).open():
            pass


async def test_a_link_is_not_followed_where_records_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious\n")
    (tmp_path / "ok").symlink_to(tmp_path / "precious")
    async with JsonlSink(str(tmp_path / "{status}"), mode="overwrite").open() as sink:
        with pytest.raises(SinkError):
            await sink.write(record("one"))
    assert (tmp_path / "precious").read_text() == "precious\n"
