"""One line a record: the whole record, its short form, or only what it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pipeline.core.codec import NotJson
from pipeline.core.errors import DefinitionError, Failure
from pipeline.core.record import Record
from pipeline.core.usage import Usage
from stages.sinks import JsonlSink, RawSink

OK = Record("a", 0, "ok", "é\ud800", {"draft": "d"}, None, Usage(1, 2), None, {"prompt": "p"})
FAILED = Record("b", 1, "failed", None, {}, Failure("Boom", "draft", "it broke"), Usage(), None, "p")
PARTIAL = Record("c", 2, "partial", {"x": [1], "y": "line"}, {"draft": "d"}, None, Usage(), None, "p", ("j.k",))
RECORDS = (OK, FAILED, PARTIAL)


async def written(sink: JsonlSink | RawSink) -> str:
    async with sink.open() as opened:
        for record in RECORDS:
            await opened.write(record)
    with open(sink.path, encoding="utf-8") as file:  # noqa: ASYNC230 - a small file of a test
        return file.read()


async def test_a_standard_line_is_the_standard_record(tmp_path: Path) -> None:
    lines = (await written(JsonlSink(str(tmp_path / "out")))).splitlines()
    assert [json.loads(line) for line in lines] == [record.standard() for record in RECORDS]
    assert lines[0].startswith(
        '{"id":"a","index":0,"status":"ok","output":"é\\ud800","outputs":{"draft":"d"},"error":null,'
    )


async def test_a_minimal_line_says_id_status_output_and_error(tmp_path: Path) -> None:
    lines = (await written(JsonlSink(str(tmp_path / "out"), detail="minimal"))).splitlines()
    assert lines[0] == '{"id":"a","status":"ok","output":"é\\ud800","error":null}'
    assert json.loads(lines[1])["error"]["message"] == "it broke"
    assert len(lines) == 3


async def test_raw_lines_are_text_as_it_is_and_other_outputs_as_json(tmp_path: Path) -> None:
    assert await written(RawSink(str(tmp_path / "out"))) == 'é\\ud800\n{"x":[1],"y":"line"}\n'


@pytest.mark.parametrize(
    ("field", "text"), [("x", "null\n[1]\n"), ("y", "null\nline\n"), ("draft", "d\nd\n"), ("gone", "null\nnull\n")]
)
async def test_a_raw_field_is_of_the_output_or_else_of_a_stage(tmp_path: Path, field: str, text: str) -> None:
    assert await written(RawSink(str(tmp_path / "out"), field)) == text


async def test_lines_are_counted_and_a_record_without_one_is_not(tmp_path: Path) -> None:
    async with RawSink(str(tmp_path / "out")).open() as opened:
        await opened.write(FAILED)
        assert opened.lines == 0
        await opened.write(OK)
        assert opened.lines == 1


async def test_an_output_that_is_not_json_names_its_place_and_writes_nothing(tmp_path: Path) -> None:
    async with JsonlSink(str(tmp_path / "out")).open() as opened:
        with pytest.raises(NotJson, match=r"output\.score: nan is not a JSON number"):
            await opened.write(Record("a", 0, "ok", {"score": math.nan}, {}, None, Usage(), None, "p"))
    assert (tmp_path / "out").read_bytes() == b""


def test_a_sink_that_cannot_be_is_refused() -> None:
    with pytest.raises(DefinitionError) as caught:
        JsonlSink("x", mode="clobber", detail="huge")
    assert str(caught.value).split("\n") == [
        "pipeline, mode: there is no mode 'clobber' (modes are create, append, overwrite)",
        "pipeline, detail: there is no level of detail 'huge' (levels are minimal, standard)",
    ]
    with pytest.raises(DefinitionError):
        RawSink("x", mode="clobber")


def test_definitions_are_values() -> None:
    assert JsonlSink("a") == JsonlSink("a")
    assert hash(RawSink("a", "f")) == hash(RawSink("a", "f"))
