"""The proof of a run holds for every run that was not touched, and names what breaks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from pipeline.core.errors import JournalError
from pipeline.core.pipeline import Pipeline
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.inspection.verify import Proof, verify
from pipeline.durability.journal import DEAD, FILE, Journal
from pipeline.durability.outputs.projection import TAKEN_BACK
from stages import batch, filter, flat_map, map

BACKENDS = ("asyncio", "trio")
PROMPTS = [f"p{number}" for number in range(10)]


def check(value: object) -> object:
    if str(value) == "p3":
        raise ValueError("not three")
    return value


def twice(value: object) -> Iterator[str]:
    yield f"{value} a"
    yield f"{value} b"


def is_not_five(value: object) -> bool:
    return str(value) != "p5"


CHECKED = map(check, name="check") | filter(is_not_five, name="five")


def prove(place: Path) -> Proof:
    return verify(place / FILE, place / DEAD)


def make(place: Path, backend: str = "asyncio") -> None:
    pipe = Pipeline(CHECKED, ordered=True)
    anyio.run(lambda: pipe.run(PROMPTS, journal=Journal(place, output=place / "out.jsonl")), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finished_run_is_proved_in_words(backend: str, tmp_path: Path) -> None:
    make(tmp_path, backend)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    proof = prove(tmp_path)
    out, dead = tmp_path / "out.jsonl", tmp_path / DEAD
    assert str(proof).splitlines() == [
        "roots: 10 = 10 settled (8 ok, 1 failed, 1 skipped) + 0 open",
        "lines: 9 = 9 of settled roots + 0 of open ones",
        f"{dead}: 1 lines, {dead.stat().st_size:,} bytes, as written",
        f"{out}: 9 lines, {out.stat().st_size:,} bytes, as written",
        "every law holds",
    ]
    assert proof.holds
    assert proof == prove(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "nothing was changed"


@pytest.mark.parametrize("backend", BACKENDS)
def test_children_and_batches_are_counted_as_the_records_they_leave(backend: str, tmp_path: Path) -> None:
    children = Pipeline(CHECKED | flat_map(twice, name="twice"), ordered=True)
    batches = Pipeline(map(check, name="check") | batch(size=4, name="four"))
    both = Pipeline(flat_map(twice, name="twice") | batch(size=4, name="four"))

    async def body() -> None:
        for name, pipe in (("children", children), ("batches", batches), ("both", both)):
            await pipe.run(PROMPTS, journal=Journal(tmp_path / name, output=tmp_path / f"{name}.jsonl"))

    anyio.run(body, backend=backend)
    for name in ("children", "batches", "both"):
        proof = prove(tmp_path / name)
        assert proof.holds, f"{name}: {proof}"
        assert (proof.roots, proof.open) == (10, 0)
    assert (prove(tmp_path / "children").lines, prove(tmp_path / "children").in_batches) == (1 + 8 * 2, 0)
    # nine in batches of four are three batches, of which one member each has the line
    assert (prove(tmp_path / "batches").lines, prove(tmp_path / "batches").in_batches) == (1 + 3, 6)
    assert prove(tmp_path / "both").lines == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_that_was_left_has_open_roots_and_still_balances(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        pipe = Pipeline(CHECKED, ordered=True, max_in_flight=3)
        async with pipe.open(PROMPTS, journal=Journal(tmp_path, output=tmp_path / "out.jsonl")) as run:
            async for _ in run.results:
                break

    anyio.run(body, backend=backend)
    proof = prove(tmp_path)
    assert proof.holds, str(proof)
    assert proof.roots == sum(proof.settled.values()) + proof.open
    assert 0 < proof.lines <= proof.roots <= len(PROMPTS)


def edit(place: Path, *statements: str) -> None:
    store = Store.open(place / FILE, "power", silent)
    store.change(*((statement, ()) for statement in statements))
    store.close(fold=True)


BROKEN = {
    "has ended and has no line": ("DELETE FROM line WHERE number = 1", "UPDATE projection SET number = -1"),
    "has ended and was never admitted": ("DELETE FROM root WHERE seq = 2",),
    "has a line and was never admitted": ("DELETE FROM root WHERE seq = 2",),
    "was skipped and has a line": ("UPDATE settled SET status = 'skipped' WHERE root = 2",),
    "has its record and is open": ("DELETE FROM settled WHERE root = 2",),
    "has ended otherwise than its record says": ("UPDATE settled SET status = 'failed' WHERE root = 2",),
    "failed without a dead letter, or has one and did not": (
        "UPDATE line SET dead = NULL",
        "UPDATE projection SET number = -1",
    ),
}


@pytest.mark.parametrize("law", BROKEN)
def test_each_law_that_is_broken_is_named(law: str, tmp_path: Path) -> None:
    make(tmp_path)
    edit(tmp_path, *BROKEN[law])
    proof = prove(tmp_path)
    assert not proof.holds
    assert any(law in problem for problem in proof.problems), str(proof)
    assert str(proof).endswith("the run does not balance")


def test_many_faults_of_a_kind_are_told_by_example(tmp_path: Path) -> None:
    pipe = Pipeline(CHECKED)
    anyio.run(lambda: pipe.collect([f"q{number}" for number in range(20)], journal=Journal(tmp_path)))
    edit(tmp_path, "DELETE FROM settled")
    problems = prove(tmp_path).problems
    assert len(problems) == 11
    assert problems[-1] == "and there are more that are so: has its record and is open"


@pytest.mark.parametrize("name", ["out.jsonl", DEAD])
def test_a_file_that_was_changed_is_told_with_its_byte(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"#" + data[34:])
    assert prove(tmp_path).problems == (f"{path}: was changed: byte 33 is not what was written",)
    path.unlink()
    assert prove(tmp_path).problems == (f"{path}: is gone, and {len(data):,} bytes of it were written",)


def test_what_a_resume_will_do_is_no_fault(tmp_path: Path) -> None:
    make(tmp_path)
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(b"torn")
    assert "; 4 bytes are behind those" in str(prove(tmp_path))
    store = Store.open(tmp_path / FILE, "power", silent)
    store.change(TAKEN_BACK)
    store.close(fold=True)
    proof = prove(tmp_path)
    assert proof.holds
    assert "0 lines, 0 bytes, as written; 9 lines are not known to be in it, a resume appends them" in str(proof)


def test_damage_and_what_is_no_journal_are_told(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / FILE
    with pytest.raises(JournalError, match=r"out\.jsonl: is damaged or no journal"):
        verify(tmp_path / "out.jsonl", tmp_path / DEAD)
    with pytest.raises(JournalError, match=r"gone\.db: cannot be read as a journal"):
        verify(tmp_path / "gone.db", tmp_path / DEAD)
    assert not (tmp_path / "gone.db").exists()
    with closing(open(path, "r+b")) as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"\xff" * 4096)
    assert "every law holds" not in said(tmp_path)


def said(place: Path) -> str:
    try:
        return str(prove(place))
    except JournalError as error:
        return str(error)
