"""What had not left the process when it was killed costs nothing; what nobody knows counts as if it had left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.budget import Budget
from pipeline.durability.disk import departures
from pipeline.durability.disk.departures import CELLS, Departures, departed, open_departures
from pipeline.durability.journal import DEPARTURES, Journal
from tests.durability.lives import asked, crashed, live, pipe
from tests.engine.schedules import run_in

PROMPTS = ["one", "two", "three", "four"]

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# -- the file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / DEPARTURES


def test_what_a_process_has_noted_is_there_for_the_next_one(path: Path) -> None:
    noting = Departures(path, 3)
    for attempt in (7, CELLS + 9):
        noting.note(attempt)
    found = departed(path)
    assert [found.may_have_left(attempt, 3) for attempt in (6, 7, 8, CELLS + 8, CELLS + 9)] == [
        *(False, True, False),
        *(False, True),
    ]


def test_an_attempt_whose_cell_a_later_one_has_used_may_have_left(path: Path) -> None:
    noting = Departures(path, 1)
    noting.note(CELLS + 9)
    assert departed(path).may_have_left(9, 1)
    assert not departed(path).may_have_left(2 * CELLS + 9, 1)


def test_of_another_run_nothing_is_known(path: Path) -> None:
    Departures(path, 3)
    assert not departed(path).may_have_left(1, 3)
    assert departed(path).may_have_left(1, 2)
    assert departed(path).may_have_left(1, 4)


def test_of_another_start_of_the_system_nothing_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Departures(path, 3)
    assert not departed(path).may_have_left(1, 3)
    monkeypatch.setattr(departures, "_boot", lambda: (1, 2))
    assert departed(path).may_have_left(1, 3)


@pytest.mark.parametrize("data", [None, b"", b"something else"])
def test_where_there_is_no_such_file_everything_may_have_left(data: bytes | None, path: Path) -> None:
    if data is not None:
        path.write_bytes(data)
    assert departed(path).may_have_left(1, 1)


def test_a_run_that_ends_by_itself_leaves_no_file(path: Path) -> None:
    noting = Departures(path, 1)
    noting.close()
    noting.note(1)
    assert not path.exists()


def test_a_system_that_says_nothing_of_its_starts_keeps_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departures, "_BOOT", path.with_name("nowhere"))
    assert open_departures(path, 1) is None
    assert not path.exists()
    assert departed(path).may_have_left(1, 1)


# -- a run that is gone on with -----------------------------------------------------------------------------------


@both_backends
@pytest.mark.parametrize(("known", "told"), [(True, 3), (False, 4)])
def test_an_attempt_that_has_not_left_is_neither_told_nor_paid(
    known: bool, told: int, backend: str, tmp_path: Path
) -> None:
    async def body() -> None:
        image = tmp_path / "image"
        journal = await crashed(pipe(budget=Budget(requests=7)), PROMPTS, Journal(tmp_path / "run"), 1.0, image)
        assert asked(journal, "SELECT id, state FROM attempt ORDER BY id") == [(n, "started") for n in (1, 2, 3, 4)]
        assert [departed(image / DEPARTURES).may_have_left(n, 1) for n in (1, 2, 3, 4, 5)] == [*(True,) * 4, False]
        (image / DEPARTURES).unlink()
        if known:
            noting = Departures(image / DEPARTURES, 1)
            for attempt in (1, 3, 4):
                noting.note(attempt)
        lived = await live(pipe(budget=Budget(requests=told + 4)), PROMPTS, replace(journal, accept_changes=True))
        assert lived.recovered is not None
        assert (lived.recovered.calls_in_flight, lived.recovered.attempts_in_flight) == (told, told)
        states = asked(journal, "SELECT state, count(*) FROM attempt WHERE epoch = 1 GROUP BY state")
        assert states == ([("ambiguous", 3), ("unsent", 1)] if known else [("ambiguous", 4)])
        assert [record.status for record in lived.records] == ["ok"] * 4

    run_in(backend, 0, body)


@both_backends
def test_a_recovery_that_is_cut_off_finds_the_same_once_more(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        image, again = tmp_path / "image", tmp_path / "again"
        journal = await crashed(pipe(), PROMPTS, Journal(tmp_path / "run"), 1.0, image)
        (image / DEPARTURES).unlink()
        Departures(image / DEPARTURES, 1).note(2)
        journal = await crashed(pipe(), PROMPTS, journal, 0, again)
        assert asked(journal, "SELECT id, state FROM attempt ORDER BY id") == [
            *((1, "unsent"), (2, "ambiguous"), (3, "unsent"), (4, "unsent"))
        ]
        lived = await live(pipe(), PROMPTS, journal)
        assert lived.recovered is not None
        assert lived.recovered.calls_in_flight == 1

    run_in(backend, 0, body)
