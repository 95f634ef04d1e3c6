"""A resume knows its records by identity: what is known is not run again, and a changed file is refused or matched."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.core.errors import JournalError
from pipeline.core.record import Input
from pipeline.durability.disk.store import Store
from pipeline.durability.inspection.verify import verify
from pipeline.durability.journal import Journal
from pipeline.durability.resume.input import progress
from pipeline.durability.resume.known import Known
from stages import map as mapped
from stages.sources import Inputs
from tests.durability.lives import asked, attempts, crashed, live, pipe
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

LINES = [f"line {number}\n" for number in range(6)]


def prompts_of(journal: Journal) -> list[str]:
    """The prompts in the journal, in the order in which they were admitted."""
    packed = [json.loads(record) for (record,) in asked(journal, "SELECT record FROM root ORDER BY seq")]
    return [each.get("text", each.get("prompt")) for each in packed]


def outputs(place: Path) -> list[object]:
    return [json.loads(line)["output"] for line in (place / "out.jsonl").read_text().splitlines()]


class Case:
    """A file, and a run over it that has come to its end."""

    def __init__(self, place: Path, name: str = "prompts.txt") -> None:
        self.path = place / name
        self.journal = Journal(place / "run", output=place / "out.jsonl")
        self.bare = Journal(place / "bare")  #: for runs that crash
        self.accepting = replace(self.journal, accept_changes=True)
        self.source = Inputs((str(self.path),))
        self.pipeline = pipe()

    def write(self, *lines: str) -> None:
        self.path.write_text("".join(lines))

    async def run(self, journal: Journal | None = None) -> list[object]:
        lived = await live(self.pipeline, self.source, journal or self.journal)
        return [record.output for record in lived.records]


@both_backends
def test_lines_that_were_appended_are_run_and_no_others(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES[:4])
        await case.run()
        case.write(*LINES)
        assert sorted(map_text(await case.run())) == ["line 4", "line 5"]
        assert attempts(case.journal, 2) == {"a": 2}
        assert await case.run() == []
        assert prompts_of(case.journal) == [line.strip() for line in LINES]

    run_in(backend, 0, body)


def map_text(outputs: list[object]) -> list[str]:
    return [str(output) for output in outputs]


CHANGES: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a line less": (lambda lines: lines[:-1], "has 35 bytes, and 42 of it were read"),
    "a line inserted": (
        lambda lines: [lines[0], "new\n", *lines[1:]],
        "was changed in its first 42 bytes, which were read",
    ),
    "a line edited": (lambda lines: ["LINE 0\n", *lines[1:]], "was changed in its first 42 bytes, which were read"),
    "other order": (lambda lines: lines[::-1], "was changed in its first 42 bytes, which were read"),
    "all gone": (lambda lines: [], "has 0 bytes, and 42 of it were read"),
}


@both_backends
@pytest.mark.parametrize("name", CHANGES)
def test_any_other_change_is_refused_before_any_call(backend: str, tmp_path: Path, name: str) -> None:
    change, said = CHANGES[name]

    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES)
        dead = await crashed(case.pipeline, case.source, case.bare, 2, tmp_path / "dead")
        case.write(*change(LINES))
        with pytest.raises(JournalError) as raised:
            await case.run(dead)
        assert str(raised.value).splitlines()[:2] == [
            f"{tmp_path / 'dead'}: the input has changed:",
            f"  {case.path}: {said}",
        ]
        assert asked(dead, "SELECT max(epoch) FROM attempt") == [(1,)]
        assert asked(dead, "SELECT count(*) FROM attempt WHERE state = 'started'") == [(6,)]

    run_in(backend, 0, body)


@both_backends
def test_an_accepted_change_keeps_what_is_done_and_runs_what_is_new(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES[:4])
        await case.run()
        case.write(LINES[2], "new\n", LINES[0])
        assert map_text(await case.run(case.accepting)) == ["new"]
        assert attempts(case.journal, 2) == {"a": 1}
        assert sorted(map_text(outputs(tmp_path))) == ["line 0", "line 1", "line 2", "line 3", "new"]
        assert await case.run() == []  # what was accepted is what is known now
        (event,) = asked(case.journal, "SELECT value FROM event WHERE what = 'input changed'")
        assert json.loads(event[0])["gone"] == 0

    run_in(backend, 0, body)


@both_backends
def test_what_was_begun_and_stands_in_the_file_no_more_is_not_wanted(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES[:4])
        dead = await crashed(case.pipeline, case.source, case.bare, 2, tmp_path / "dead")
        case.write(LINES[3], LINES[5])
        accepting = replace(dead, accept_changes=True)
        assert sorted(map_text(await case.run(accepting))) == ["line 3", "line 5"]
        assert prompts_of(dead) == ["line 3", "line 5"]
        case.write(LINES[3], LINES[5], LINES[0])
        assert map_text(await case.run(dead)) == ["line 0"]

    run_in(backend, 0, body)


@both_backends
def test_a_record_whose_id_says_something_else_is_edited_and_takes_the_place_of_the_old_one(
    backend: str, tmp_path: Path
) -> None:
    def line(id: str, prompt: str) -> str:
        return json.dumps({"id": id, "prompt": prompt}) + "\n"

    async def body() -> None:
        case = Case(tmp_path, "prompts.jsonl")
        case.write(line("x", "one"), line("y", "two"), line("z", "three"))
        await case.run()
        case.write(line("x", "one"), line("y", "other"), line("z", "three"))
        with pytest.raises(JournalError, match="was changed in its first"):
            await case.run()
        assert map_text(await case.run(case.accepting)) == ["other"]
        assert sorted(map_text(outputs(tmp_path))) == ["one", "other", "three"]

    run_in(backend, 0, body)


@both_backends
def test_an_edited_record_of_a_source_that_cannot_be_read_twice_is_refused(backend: str, tmp_path: Path) -> None:
    async def source(*records: Input) -> AsyncIterator[Input]:
        for record in records:
            yield record

    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(pipe(), source(Input("one", "x", prompt="one")), journal)
        for each in (journal, replace(journal, accept_changes=True)):
            with pytest.raises(JournalError, match="record 'x': its id was given to a record that said something else"):
                await live(pipe(), source(Input("two", "x", prompt="two")), each)
        assert asked(journal, "SELECT count(*) FROM attempt") == [(1,)]

    run_in(backend, 0, body)


@both_backends
def test_an_edited_record_of_a_list_is_run_anew_when_that_is_accepted(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(pipe(), [{"id": "x", "prompt": "one"}, "two", {"id": "z", "prompt": "three"}], journal)
        changed = [{"id": "x", "prompt": "other"}, "two"]
        with pytest.raises(JournalError, match="record 'x'"):
            await live(pipe(), changed, journal)
        lived = await live(pipe(), changed, replace(journal, accept_changes=True))
        assert [record.output for record in lived.records] == ["other"]
        assert asked(journal, "SELECT count(*) FROM line") == [(3,)]

    run_in(backend, 0, body)


@both_backends
def test_what_was_tried_for_a_record_that_is_forgotten_is_not_told_of_another_one(backend: str, tmp_path: Path) -> None:
    """Its attempts were paid, so they stay; and no other root gets its number."""

    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(pipe(), ["one", {"id": "x", "prompt": "two"}], journal)
        await live(pipe(), ["one", {"id": "x", "prompt": "other"}], replace(journal, accept_changes=True))
        assert asked(journal, "SELECT seq FROM root ORDER BY seq") == [(1,), (3,)]
        assert asked(journal, "SELECT root FROM attempt ORDER BY id") == [(1,), (2,), (3,)]

    run_in(backend, 0, body)


@both_backends
def test_repeated_contents_are_told_apart_by_how_often_they_came(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        first = await live(pipe(), ["same", "same", "other"], journal)
        assert len(first.records) == 3
        assert len({record.id for record in first.records}) == 3
        second = await live(pipe(), ["same", "other", "same", "same"], journal)
        assert [record.output for record in second.records] == ["same"]

    run_in(backend, 0, body)


def test_known_records_are_a_multiset_of_ids_and_contents() -> None:
    one, two = b"1" * 16, b"2" * 16
    known = Known([("a", one), ("a", two), ("b", one)])
    assert known.take("a", two) == "known"
    assert known.take("a", two) == "edited"
    assert known.take("a", one) == "known"
    assert known.take("a", one) == "new"
    assert known.take("c", one) == "new"
    assert known.take("b", two) == "edited"


@both_backends
def test_a_resume_without_its_stdin_finishes_what_was_begun_and_with_it_goes_on(backend: str, tmp_path: Path) -> None:
    async def piped(count: int) -> AsyncIterator[object]:
        for line in LINES[:count]:
            yield line.strip()

    async def body() -> None:
        pipeline = pipe(max_in_flight=2)
        dead = await crashed(pipeline, piped(6), Journal(tmp_path / "run"), 2, tmp_path / "dead")
        without = await live(pipeline, [], dead)
        assert len(without.records) == 2
        again = await live(pipeline, piped(6), dead)
        assert len(again.records) == 4
        assert prompts_of(dead) == [line.strip() for line in LINES]

    run_in(backend, 0, body)


@both_backends
def test_what_was_not_read_yet_may_change(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        lines = [f"{number} {'x' * 1000}\n" for number in range(200)]
        case = Case(tmp_path)
        case.pipeline = pipe("{{ prompt[:3] }}", max_in_flight=2)
        case.write(*lines)
        dead = await crashed(case.pipeline, case.source, case.bare, 2, tmp_path / "dead")
        case.write(*lines[:100], *(line.upper() for line in lines[100:150]))
        assert len((await live(case.pipeline, case.source, replace(dead))).records) == 150

    run_in(backend, 0, body)


@both_backends
def test_the_proof_does_not_shrink_when_a_resume_begins_to_read_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        lines = [f"{number} {'x' * 1000}\n" for number in range(200)]
        case = Case(tmp_path)
        case.pipeline = Pipeline(mapped(str, name="copy"), max_in_flight=2)
        case.write(*lines)
        await case.run(case.bare)
        dead = await crashed(case.pipeline, case.source, case.bare, 0, tmp_path / "dead")
        store = Store.open(tmp_path / "dead" / "journal.db", "process", lambda point: None)
        (found,) = progress(store)
        store.close(fold=True)
        assert (found.read, found.ended) == (sum(map(len, lines)), True)
        assert await case.run(dead) == []

    run_in(backend, 0, body)


@both_backends
def test_a_last_line_that_goes_on_is_a_change(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write("one\n", "tw")
        await case.run()
        case.write("one\n", "two\n")
        with pytest.raises(JournalError, match="its last line was read without an end, and goes on now"):
            await case.run()
        case.write("one\n", "tw\n", "three\n")
        assert map_text(await case.run()) == ["three"]

    run_in(backend, 0, body)


@both_backends
def test_compressed_files_are_proven_as_they_lie_there(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path, "prompts.txt.gz")
        one, two = gzip.compress(b"one\n", mtime=0), gzip.compress(b"two\n", mtime=0)
        case.path.write_bytes(one)
        await case.run()
        case.path.write_bytes(one + two)
        assert map_text(await case.run()) == ["two"]
        case.path.write_bytes(two + one)
        with pytest.raises(JournalError, match="was changed in its first"):
            await case.run()

    run_in(backend, 0, body)


@both_backends
def test_other_files_are_refused_and_more_files_are_not(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES[:2])
        more = tmp_path / "more.txt"
        more.write_text(LINES[2])
        await case.run()
        case.source = Inputs((str(case.path), str(more)))
        assert map_text(await case.run()) == ["line 2"]
        case.source = Inputs((str(more), str(case.path)))
        with pytest.raises(JournalError) as raised:
            await case.run()
        assert str(raised.value).splitlines()[1:3] == [
            f"  {case.path}: was input number 1, and it is {more} now",
            f"  {more}: was input number 2, and it is {case.path} now",
        ]
        assert await case.run(case.accepting) == []
        case.source = Inputs((str(more),))
        with pytest.raises(JournalError, match="was input number 2, and there are fewer now"):
            await case.run()
        more.unlink()
        with pytest.raises(JournalError, match=r"more\.txt: no such file"):
            await case.run()

    run_in(backend, 0, body)


@both_backends
def test_records_that_are_new_in_the_middle_come_at_the_end_of_an_ordered_output(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.pipeline = pipe(ordered=True)
        case.write(*LINES[:3])
        await case.run()
        case.write(LINES[0], "new\n", *LINES[1:3])
        await case.run(case.accepting)
        assert outputs(tmp_path) == ["line 0", "line 1", "line 2", "new"]

    run_in(backend, 0, body)


@both_backends
def test_finished_records_that_the_input_has_no_more_stay_and_are_told(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        case = Case(tmp_path)
        case.write(*LINES[:3])
        await case.run()
        case.write(LINES[0], "another\n", LINES[2])
        lived = await live(case.pipeline, case.source, case.accepting)
        assert [(record.index, record.output) for record in lived.records] == [(1, "another")]
        assert sorted(map_text(outputs(tmp_path))) == ["another", "line 0", "line 1", "line 2"]
        told = (
            "1 finished record is not in the input any more: it stays in the output; "
            "the index of a record is its place in the input of its time"
        )
        assert lived.recovered is not None
        assert (lived.recovered.left, told in lived.recovered.lines) == (1, True)
        proof = verify(tmp_path / "run" / "journal.db", tmp_path / "run" / "errors.jsonl")
        assert (proof.holds, proof.left, told in str(proof).splitlines()) == (True, 1, True)
        case.write(*LINES[:3], "another\n")
        lived = await live(case.pipeline, case.source, case.accepting)
        assert lived.recovered is not None
        assert (lived.records, lived.recovered.left) == ([], 0)
        proof = verify(tmp_path / "run" / "journal.db", tmp_path / "run" / "errors.jsonl")
        assert (proof.left, "any more" in str(proof)) == (0, False)

    run_in(backend, 0, body)
