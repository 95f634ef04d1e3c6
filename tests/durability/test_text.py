"""Text that is no UTF-8 goes through a journal like any other: as an id, as the name of a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import Input, Pipeline
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.disk.text import bindable, unbound
from pipeline.durability.inspection.verify import verify
from pipeline.durability.journal import DEAD, FILE, Journal
from stages import map
from tests.durability.lives import live
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def fine(value: object) -> object:
    return value


def fails(value: object) -> object:
    raise ValueError(str(value))


@pytest.mark.parametrize(
    "text", ["", "plain", "päper", "\ud800", "\udcff.txt", "a\ufdd0b", "\ufdd0d800", "\ufdd0\ud800é"]
)
def test_what_comes_out_is_what_went_in(text: str, tmp_path: Path) -> None:
    values = (text, 7, b"\xff", None)
    bound = bindable(values)
    assert str(bound[0]).encode().decode() == bound[0]
    assert (bound is values) == (text in ("", "plain", "päper"))
    assert unbound(tuple(bound)) == values
    store = Store.create(tmp_path / FILE, "process", silent, {"a" + text: text})
    assert list(store.read("SELECT key, value FROM meta WHERE key = ?", ("a" + text,))) == [("a" + text, text)]
    store.close(fold=True)
    store = Store.open(tmp_path / FILE, "process", silent)
    assert list(store.read("SELECT value FROM meta")) == [(text,)]
    store.close(fold=True)


@both_backends
@pytest.mark.parametrize("function", [fine, fails])
def test_an_id_may_be_half_a_character(backend: str, function: object, tmp_path: Path) -> None:
    async def body() -> None:
        pipeline = Pipeline(map(function, name="own"))  # type: ignore[arg-type]
        source = [Input("x", id="\ud800"), Input("y", id="\ud801"), Input("z", id="\ufdd0d800")]
        journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl")
        lived = await live(pipeline, source, journal)
        assert [record.id for record in lived.records] == ["\ud800", "\ud801", "\ufdd0d800"]
        assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_bytes().splitlines()] == [
            "\ud800",
            "\ud801",
            "\ufdd0d800",
        ]
        assert (await live(pipeline, source, journal)).records == []
        assert verify(tmp_path / "run" / FILE, tmp_path / "run" / DEAD).problems == ()

    run_in(backend, 0, body)


@both_backends
def test_files_and_directories_may_have_names_that_are_no_text(backend: str, tmp_path: Path) -> None:
    place = tmp_path / os.fsdecode(b"d\xff")
    place.mkdir()
    given, written = place / os.fsdecode(b"in\xfe.txt"), place / os.fsdecode(b"out\xfd.jsonl")
    given.write_text("one\ntwo\n")

    def penstock(*words: str | Path) -> str:
        command = (sys.executable, "-m", "pipeline.cli.main", *words)
        ended = subprocess.run(command, cwd=place, capture_output=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stderr
        return (ended.stdout + ended.stderr).decode("utf-8", "replace")

    asked = ("-m", "sim/default", "-p", "Say {{ prompt }}", "--backend", backend)
    penstock("run", *asked, given.name, "-o", written.name, "--run-dir", "run")
    assert len(written.read_bytes().splitlines()) == 2
    given.write_text("one\ntwo\nthree\n")
    penstock("resume", "run")
    assert len(written.read_bytes().splitlines()) == 3
    penstock("verify", "run")
    penstock("runs", "list")
