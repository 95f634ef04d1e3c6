"""A disk that is full or fails: the run ends with its name, nothing is reported done that is not, and a resume makes it
right."""

from __future__ import annotations

import errno
import gzip
import json
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import anyio
import pytest

from pipeline.core.errors import WriteError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.durability.disk import reserve
from pipeline.durability.disk.reserve import NAME, Reserve
from pipeline.durability.disk.store import Store, as_os_error, silent
from pipeline.durability.inspection.verify import verify
from pipeline.durability.journal import FILE, Journal
from pipeline.durability.outputs.projection import TAKEN_BACK
from stages import agent, map
from stages.models import resolve

BACKENDS = ("asyncio", "trio")
INPUT = [f"p{number}" for number in range(8)]


def refuse_three(value: object) -> object:
    if "3" in str(value):
        raise ValueError("not three")
    return value


PIPE = Pipeline(
    map(refuse_three, name="check") | agent("say", model=resolve("sim/default", latency=0)), max_in_flight=3
)


class Strike:
    """Refuses once, at one occurrence of a point; notes which are passed."""

    def __init__(self, point: str = "", number: int = errno.EIO, *, last: int = 1, always: bool = False) -> None:
        self.point = point
        self.number = number
        self.passed: list[str] = []
        self.left = last
        self.always = always

    def __call__(self, point: str) -> None:
        self.passed.append(point)
        if point == self.point:
            self.left -= 1
            if self.left == 0 or (self.always and self.left < 0):
                raise OSError(self.number, "Struck")


class Consumer:
    """Takes records, and knows that each was in the journal by then."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.ids: list[str] = []

    async def write(self, record: Record) -> None:
        with Store.looking(self.journal) as store:
            assert [id for (id,) in store.read("SELECT id FROM line WHERE id = ?", (record.id,))] == [record.id]
        self.ids.append(record.id)


class Fresh:
    """A first run, to one file."""

    name = "fresh"
    output = "out.jsonl"

    async def prepare(self, place: Path) -> None:
        """Nothing was there."""

    def lines(self, place: Path) -> list[bytes]:
        return (place / self.output).read_bytes().splitlines()


class Resumed(Fresh):
    """A run that goes on, whose files are made anew, to compressed files by status."""

    name = "resumed"
    output = "{status}.jsonl.gz"

    async def prepare(self, place: Path) -> None:
        await PIPE.run(INPUT[:5], journal=Journal(place / "run", output=place / self.output))
        store = Store.open(place / "run" / FILE, "power", silent)
        store.change(TAKEN_BACK)
        store.close(fold=True)

    def lines(self, place: Path) -> list[bytes]:
        files = sorted(place.glob("*.jsonl.gz"))
        return [line for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


class Behind(Fresh):
    """A run that goes on, whose file was torn behind what is known of it."""

    name = "behind"

    async def prepare(self, place: Path) -> None:
        await PIPE.run(INPUT[:5], journal=Journal(place / "run", output=place / self.output))
        with (place / self.output).open("ab") as file:
            file.write(bytes(7))  # as a loss of power can leave it


WORKLOADS: Sequence[Fresh] = (Fresh(), Resumed(), Behind())


async def play(workload: Fresh, place: Path, probe: Callable[[str], object]) -> list[str]:
    consumer = Consumer(place / "run" / FILE)
    await PIPE.run(INPUT, consumer, journal=Journal(place / "run", output=place / workload.output, probe=probe))
    return consumer.ids


@cache
def points(workload: Fresh) -> tuple[str, ...]:
    """Every point that a run passes, once."""

    with tempfile.TemporaryDirectory() as place:
        strike = Strike()

        async def whole() -> None:
            await workload.prepare(Path(place))
            await play(workload, Path(place), strike)

        anyio.run(whole)
    return tuple(dict.fromkeys(strike.passed))


@cache
def expected() -> frozenset[bytes]:
    """The lines of a run that nothing happened to."""

    with tempfile.TemporaryDirectory() as place:
        anyio.run(play, WORKLOADS[0], Path(place), silent)
        lines = WORKLOADS[0].lines(Path(place))
    assert len(lines) == len(INPUT)
    return frozenset(lines)


SHARDS = 4  #: of the points of a workload, so that tests are spread over processes


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("workload", WORKLOADS, ids=[workload.name for workload in WORKLOADS])
def test_a_disk_that_refuses_anywhere_ends_the_run_and_a_resume_makes_it_right(
    workload: Fresh, shard: int, backend: str, number: int, tmp_path: Path
) -> None:
    passed = points(workload)
    assert len(passed) > 4 * SHARDS
    for turn, point in enumerate(passed[shard::SHARDS]):
        if workload is WORKLOADS[0] or BACKENDS[turn % 2] == backend:  # both backends, for the others in turn
            place = tmp_path / str(turn)
            place.mkdir()
            strike_at(point, number, workload, backend, place)


def strike_at(point: str, number: int, workload: Fresh, backend: str, place: Path) -> None:
    """Let the disk refuse at `point`, and demand that a resume makes it right."""

    async def struck() -> None:
        await workload.prepare(place)
        strike = Strike(point, number)
        with pytest.raises(WriteError):
            await play(workload, place, strike)
        assert strike.left <= 0, f"{point} was not struck"
        await play(workload, place, silent)

    anyio.run(struck, backend=backend)
    lines = workload.lines(place)
    assert (len(lines), frozenset(lines)) == (len(INPUT), expected()), point
    letters = (place / "run" / "errors.jsonl").read_bytes().splitlines()
    assert [json.loads(letter)["record"] for letter in letters] == ["p3"], point
    proof = verify(place / "run" / FILE, place / "run" / "errors.jsonl")
    assert proof.holds, f"{point}: {proof}"
    assert proof.open == 0, point


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_full_output_stops_calls_but_not_the_journal(backend: str, tmp_path: Path) -> None:
    strike = Strike("output:write", errno.ENOSPC, always=True)
    workload = WORKLOADS[0]

    async def full() -> None:
        with pytest.raises(WriteError) as caught:
            await play(workload, tmp_path, strike)
        assert str(caught.value) == f"{tmp_path}/out.jsonl: struck"

    anyio.run(full, backend=backend)
    assert strike.passed.count("output:write") == 1, "a file that is full is left alone"
    proof = verify(tmp_path / "run" / FILE, tmp_path / "run" / "errors.jsonl")
    assert proof.holds, str(proof)
    assert proof.begun == 0
    assert 0 < proof.lines < len(INPUT)
    assert (tmp_path / "run" / NAME).stat().st_size == reserve.SIZE, "the room is kept for the resume"
    anyio.run(play, workload, tmp_path, silent, backend=backend)
    assert sorted(workload.lines(tmp_path)) == sorted(expected())
    assert not (tmp_path / "run" / NAME).exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_journal_on_a_full_disk_has_the_room_that_was_put_aside(backend: str, tmp_path: Path) -> None:
    strike = Strike("commit:last", errno.ENOSPC)

    async def full() -> None:
        with pytest.raises(WriteError, match=r"^the journal: struck$"):
            await play(WORKLOADS[0], tmp_path, strike)

    anyio.run(full, backend=backend)
    after = strike.passed[strike.passed.index("reserve:remove") :]
    assert "commit:after" in after, "what was in flight was written"
    assert verify(tmp_path / "run" / FILE, tmp_path / "run" / "errors.jsonl").begun == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_disk_that_stays_full_ends_the_run_at_once(backend: str, tmp_path: Path) -> None:
    strike = Strike("commit:last", errno.EDQUOT, last=2, always=True)

    async def full() -> None:
        with pytest.raises(WriteError):
            await play(WORKLOADS[0], tmp_path, strike)

    anyio.run(full, backend=backend)
    assert strike.left == -1, "one try, and one more with room"


@pytest.mark.parametrize("point", ["commit:last", "output:sync", "errors:write", "output:directory"])
def test_after_an_error_of_the_disk_nothing_more_is_written(point: str, tmp_path: Path) -> None:
    strike = Strike(point, errno.EIO)

    async def broken() -> None:
        with pytest.raises(WriteError):
            await play(WORKLOADS[0], tmp_path, strike)

    anyio.run(broken)
    assert strike.passed[-1] == point


def test_a_failed_sync_is_final_even_if_it_speaks_of_room(tmp_path: Path) -> None:
    strike = Strike("output:sync", errno.ENOSPC)

    async def broken() -> None:
        with pytest.raises(WriteError, match=r"out\.jsonl: struck$"):
            await play(WORKLOADS[0], tmp_path, strike)

    anyio.run(broken)
    assert strike.passed[-1] == "output:sync"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
def test_of_lines_that_were_written_by_half_nothing_is_left(backend: str, number: int, tmp_path: Path) -> None:
    async def half() -> None:
        with pytest.raises(WriteError):
            await play(WORKLOADS[0], tmp_path, Strike("output:half", number, last=2))

    anyio.run(half, backend=backend)
    written = (tmp_path / "out.jsonl").read_bytes()
    assert 0 < written.count(b"\n") < len(INPUT)
    assert written.endswith(b"\n")


def test_a_run_does_not_begin_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "free_bytes", lambda directory: 5 << 20)

    async def begin() -> None:
        with pytest.raises(WriteError) as caught:
            await play(WORKLOADS[0], tmp_path, silent)
        assert str(caught.value) == f"{tmp_path}/run: 5,242,880 bytes are free on the disk, a run needs 8,388,608"

    anyio.run(begin)
    assert not (tmp_path / "out.jsonl").exists()


def test_room_is_really_taken_and_given_once(tmp_path: Path) -> None:
    room = Reserve(tmp_path, silent)
    room.take()
    found = (tmp_path / NAME).stat()
    assert found.st_size == reserve.SIZE
    assert found.st_blocks * 512 >= reserve.SIZE
    room.take()
    assert (tmp_path / NAME).stat().st_ino == found.st_ino, "room that an earlier run has left is taken over"
    assert (room.give(), room.give()) == (True, False)


def test_a_file_system_that_only_takes_note_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.posix_fallocate", lambda fd, offset, size: None)
    Reserve(tmp_path, silent).take()
    assert (tmp_path / NAME).stat().st_blocks * 512 >= reserve.SIZE


@pytest.mark.parametrize(
    ("code", "number", "text"),
    [
        (sqlite3.SQLITE_FULL, errno.ENOSPC, "No space left on device (said)"),
        (sqlite3.SQLITE_IOERR_WRITE, errno.EIO, "Input/output error (said)"),
        (sqlite3.SQLITE_IOERR_FSYNC, errno.EIO, "Input/output error (said)"),
        (sqlite3.SQLITE_BUSY, errno.EBUSY, "another program is writing to it"),
        (sqlite3.SQLITE_READONLY, errno.EROFS, "Read-only file system (said)"),
        (sqlite3.SQLITE_CORRUPT, errno.EIO, "Input/output error (said)"),
    ],
)
def test_what_the_journal_says_of_the_disk_is_in_the_words_of_the_system(code: int, number: int, text: str) -> None:
    said = sqlite3.OperationalError("said")
    said.sqlite_errorcode = code
    error = as_os_error(said, Path("/runs/journal.db"))
    assert (error.errno, error.strerror, error.filename) == (number, text, "/runs/journal.db")


def test_a_journal_that_another_program_writes_to_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.durability.disk.store.BUSY", 0.0)
    anyio.run(play, WORKLOADS[0], tmp_path, silent)
    other = sqlite3.connect(tmp_path / "run" / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(WriteError, match=r"journal\.db: another program is writing to it$"):
        anyio.run(play, WORKLOADS[0], tmp_path, silent)
    other.close()
