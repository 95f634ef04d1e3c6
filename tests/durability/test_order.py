"""What leaves the process is in the journal before: a request, a record, a line of a file; and what is said to be on
the disk is there before that is said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest

from pipeline.core.errors import JournalLocked
from pipeline.durability.disk.store import Store
from pipeline.durability.journal import FILE, Journal
from pipeline.durability.outputs import projection
from pipeline.durability.outputs.output import OUTPUT
from stages.models.simulated_service import SimulatedServer
from tests.durability.lives import asked, live, model, pipe
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = [f"prompt {number}" for number in range(8)]
ONE_AT_A_TIME = pipe(model=model(latency=0), max_in_flight=1)


def count(journal: Journal, table: str) -> int:
    return int(asked(journal, f"SELECT count(*) FROM {table}")[0][0])


@both_backends
def test_a_request_is_sent_when_the_journal_has_its_record_and_the_attempt(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "run")
    known: list[tuple[int, int]] = []
    receive = SimulatedServer.receive

    def look(self: SimulatedServer, *args: Any) -> Any:
        known.append((count(journal, "root"), count(journal, "attempt")))
        return receive(self, *args)

    monkeypatch.setattr(SimulatedServer, "receive", look)
    anyio.run(live, ONE_AT_A_TIME, PROMPTS, journal, backend=backend)
    assert known == [(number, number) for number in range(1, len(PROMPTS) + 1)]


@both_backends
def test_a_record_is_delivered_when_the_journal_has_its_line(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal, known = Journal(tmp_path / "run"), list[int]()
        async with ONE_AT_A_TIME.open(PROMPTS, journal=journal) as run:
            async for _ in run.results:
                known.append(count(journal, "line"))
        assert known == list(range(1, len(PROMPTS) + 1))

    anyio.run(body, backend=backend)


class Watch:
    """Looks at an output file at each point, and notes how far it is synced."""

    def __init__(self, place: Path) -> None:
        self.journal = place / "run" / FILE
        self.output = place / "out.jsonl"
        self.synced = 0
        self.ahead: list[tuple[str, int, int]] = []  #: points at which a file was ahead of what it is made of
        self.seen: set[str] = set()
        self.unsynced = 0  #: how often something was not on the disk when a mark was stored

    def sync(self, fd: int) -> None:
        os.fdatasync(fd)
        if os.fstat(fd).st_ino == self.output.stat().st_ino:
            self.synced = os.fstat(fd).st_size

    def __call__(self, point: str) -> None:
        look: Mapping[str, Callable[[], tuple[int, int]]] = {"output:written": self._lines, "commit:after": self._mark}
        if point in look:
            self.seen.add(point)
            there, known = look[point]()
            if there > known:
                self.ahead.append((point, there, known))

    def _lines(self) -> tuple[int, int]:
        return self.output.read_bytes().count(b"\n"), self._ask("SELECT count(*) FROM line")

    def _mark(self) -> tuple[int, int]:
        self.unsynced += self.output.stat().st_size > self.synced
        return self._ask(f"SELECT coalesce(max(size), 0) FROM projection WHERE name = '{OUTPUT}'"), self.synced

    def _ask(self, query: str) -> int:
        with Store.looking(self.journal) as store, closing(store.read(query)) as found:  # type: ignore[type-var]
            return int(next(found)[0])  # type: ignore[arg-type]


@both_backends
def test_no_file_is_ahead_of_the_journal_and_no_mark_is_ahead_of_the_disk(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(tmp_path)
    monkeypatch.setattr(projection, "sync_data", watch.sync)
    monkeypatch.setattr(projection, "MUCH", 500)  # two or three lines
    journal = Journal(tmp_path / "run", output=watch.output, probe=watch)
    anyio.run(live, ONE_AT_A_TIME, PROMPTS, journal, backend=backend)
    assert watch.ahead == []
    assert watch.seen == {"output:written", "commit:after"}
    assert watch.unsynced > 0
    assert watch.synced == watch.output.stat().st_size


@both_backends
def test_who_comes_second_is_refused_while_the_first_one_runs(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        async with ONE_AT_A_TIME.open((), journal=journal):
            with pytest.raises(JournalLocked) as refused:
                await live(ONE_AT_A_TIME, PROMPTS, journal)
            assert (
                str(refused.value) == f"{tmp_path / 'run'}: process {os.getpid()} runs with this journal; wait for it"
            )
        assert len((await live(ONE_AT_A_TIME, PROMPTS, journal)).records) == len(PROMPTS)

    anyio.run(body, backend=backend)


@both_backends
def test_an_attempt_that_was_cancelled_before_it_was_sent_costs_nothing(backend: str, tmp_path: Path) -> None:
    """The host is cancelled while the group with the attempt is on its way to the disk."""

    async def body() -> None:
        with anyio.CancelScope() as scope:

            def cancel(point: str) -> None:
                if point == "commit:before":
                    anyio.from_thread.run_sync(scope.cancel)

            await live(ONE_AT_A_TIME, PROMPTS, Journal(tmp_path / "run", probe=cancel))
        assert scope.cancelled_caught
        assert asked(Journal(tmp_path / "run"), "SELECT state, usd FROM attempt") == [("unsent", None)]

    run_in(backend, 0, body)
