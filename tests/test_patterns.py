"""The table of patterns in the README: every snippet for a file and every snippet in code is run, on both backends."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from pipeline import Pipeline, Record
from pipeline.config.description import load_text

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("## Patterns") : README.index("## What is promised")]
PROMPTS = ["why is the sky blue?", "write a poem", "what is a penstock?"]
MODELS = "version: 1\nmodels: {fake: {use: sim/default, latency: 1ms}}\nstages: ["


class Row(NamedTuple):
    pattern: str
    when: str
    file: str
    code: str


def rows() -> Iterator[Row]:
    for line in SECTION.splitlines():
        cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and cells[2].startswith("`"):
            yield Row(cells[0], cells[1], cells[2].strip("`"), cells[3].strip("`"))


ROWS = {row.pattern: row for row in rows()}

#: patterns that leave another number of records than there are prompts
RECORDS = {"digest": 1, "one to many": sum(len(prompt.split()) for prompt in PROMPTS)}


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the reader's own."""
    (tmp_path / "mine.py").write_text("def work(value):\n    return value.title()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("mine", None)


def names() -> dict[str, Any]:
    """What the README's block above the table defines."""
    block = re.search(r"```python\n(.*?)```", SECTION, re.DOTALL)
    assert block is not None
    defined: dict[str, Any] = {}
    exec(block[1], defined)
    return defined


def check(row: Row, backend: str, pipe: Pipeline) -> list[Record]:
    records = anyio.run(pipe.collect, PROMPTS, backend=backend)
    assert [record.error for record in records if record.status not in ("ok", "partial")] == []
    assert len(records) == RECORDS.get(row.pattern, len(PROMPTS))
    return records


def test_the_table_has_a_row_for_every_kind_of_stage() -> None:
    kinds = {kind for row in ROWS.values() for kind in re.findall(r"\{(\w+): \w+[,}]", row.file)}
    from importlib.metadata import entry_points

    assert {point.name for point in entry_points(group="penstock.stages")} <= kinds


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("pattern", ROWS)
def test_the_snippet_for_a_file_runs(pattern: str, backend: str) -> None:
    row = ROWS[pattern]
    described = load_text(f"{MODELS}{row.file}]", "readme.yaml", allow_import=["mine"])
    check(row, backend, Pipeline(described.stages, variables=described.vars, **described.options))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("pattern", ROWS)
def test_the_snippet_in_code_runs(pattern: str, backend: str) -> None:
    row = ROWS[pattern]
    check(row, backend, Pipeline(eval(row.code, names())))
