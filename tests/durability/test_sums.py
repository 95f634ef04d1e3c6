"""A row is read with the sum that it was written with, whatever type its numbers had."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pipeline.core.errors import JournalError
from pipeline.core.usage import Cost, Usage
from pipeline.durability.disk import schema
from pipeline.durability.disk.schema import Row
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.page import OpenAttempt

BEGUN = (1, 1, '["ask"]', 0, 1, 1, "openai/any", None)


def written(place: Path, *rows: Row) -> Path:
    path = place / "journal.db"
    store = Store.create(path, "process", silent)
    store.commit(rows)
    store.close(fold=True)
    return path


@pytest.mark.parametrize("usd", [1, 1.0, 0, 0.25, None], ids=str)
def test_an_attempt_may_cost_a_whole_number_of_dollars(usd: float | None, tmp_path: Path) -> None:
    rows: list[Row] = []
    session = SimpleNamespace(writer=SimpleNamespace(queue=rows.append))
    OpenAttempt(cast(Any, session), BEGUN).end("ok", Usage(requests=1), Cost(usd, "given"))
    store = Store.open(written(tmp_path, *rows), "process", silent)
    assert [cost for (cost,) in store.read("SELECT usd FROM attempt")] == [usd]
    store.close(fold=False)


def test_a_row_with_another_sum_is_refused(tmp_path: Path) -> None:
    """In a column of floats the database makes a float of a whole number, so that is to be one before it is summed."""
    path = written(tmp_path, Row(schema.ATTEMPT, (*BEGUN, "ok", None, 1, "given")))
    with pytest.raises(JournalError, match="attempt has a row that is not what was written"):
        Store.open(path, "process", silent)
