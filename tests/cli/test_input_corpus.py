"""Inputs, files and environments of every odd kind: which records are ok, what is said of the others, and how it ends.

Each condition is tried with the installed command. Conditions that end alike share one run, a file each.
"""

from __future__ import annotations

import gzip
import json
import os
import pty
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.command import COMMAND, PATIENCE, Ended, Running, environment, penstock
from tests.cli.corpus_csv import LIMIT, TABLES, Fault, Table
from tests.cli.corpus_files import BAD, GOOD, UNREADABLE, Bad, Case, Unreadable
from tests.cli.corpus_json import ACCEPTED, REFUSED, Accepted, Refused

#: no model: each record's output is what templates see of it
PIPELINE = """\
version: 1
stages: [{map: same, value: "{{ input }}"}]
"""

ALL = ("--max-bad-items", "100%")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the pipeline and every file of the corpus."""
    place = tmp_path_factory.mktemp("corpus")
    (place / "p.yaml").write_text(PIPELINE)
    for case in (*GOOD, *BAD, *UNREADABLE):
        (place / case.name).write_bytes(case.data)
    for number, table in enumerate(TABLES):
        (place / f"{number}.csv").write_bytes(table.data)
    return place


def run(place: Path, *args: str | Path, stdin: bytes = b"", **env: str) -> Ended:
    return penstock("run", "-k", "p.yaml", *args, stdin=stdin, cwd=place, **env)


# -- files --------------------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """One run over the files of several cases."""

    ended: Ended
    outcomes: Mapping[str, Sequence[object]]


def batch(place: Path, cases: tuple[Case, ...]) -> Batch:
    ended = run(place, *ALL, *(case.name for case in cases))
    records = iter(ended.records)
    outcomes = {case.condition: [plain(next(records)) for _ in case.outcomes] for case in cases}
    assert list(records) == []
    return Batch(ended, outcomes)


@pytest.fixture(scope="module")
def good(place: Path) -> Batch:
    return batch(place, GOOD)


@pytest.fixture(scope="module")
def bad(place: Path) -> Batch:
    return batch(place, BAD)


def plain(record: Mapping[str, object]) -> object:
    error = record["error"]
    if isinstance(error, dict):
        return Bad(str(error["message"]))
    assert record["output"] == record["input"]
    return record["input"]


def expected(case: Case) -> list[object]:
    found: list[object] = []
    for each in case.outcomes:
        if isinstance(each, Bad):
            found.append(Bad(each.message.replace("{f}", case.name)))
        else:
            found.append({"prompt": each} if isinstance(each, str) else each)
    return found


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.condition)
def test_a_file_that_is_odd_and_right_gives_its_records_and_ends_with_0(case: Case, good: Batch) -> None:
    assert good.ended.code == 0
    assert good.outcomes[case.condition] == expected(case)
    said = [line.format(f=case.name) for line in case.said]
    assert [line for line in said if line not in good.ended.words] == []


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.condition)
def test_records_that_cannot_be_read_fail_alone_with_their_place_and_the_run_ends_with_1(
    case: Case, bad: Batch
) -> None:
    assert bad.ended.code == 1
    assert bad.outcomes[case.condition] == expected(case)


@pytest.fixture(scope="module")
def refused(place: Path) -> Ended:
    return run(place, *(case.name for case in UNREADABLE))


@pytest.mark.parametrize("case", UNREADABLE, ids=lambda case: case.condition)
def test_a_file_that_cannot_be_read_ends_the_run_before_it_begins(case: Unreadable, refused: Ended) -> None:
    assert (refused.code, refused.out) == (4, b"")
    words = refused.err.removeprefix("error: ").splitlines()
    assert words[UNREADABLE.index(case)] == case.message.replace("{f}", case.name)
    assert len(words) == len(UNREADABLE)


# -- lines of JSON ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def json_lines(place: Path) -> Ended:
    lines = [case.line for case in (*ACCEPTED, *REFUSED)]
    return run(place, *ALL, "--input-format", "jsonl", stdin=b"\n".join(lines) + b"\n")


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_a_line_of_json_is_a_record_with_the_very_same_values(case: Accepted, json_lines: Ended) -> None:
    value = json.loads(case.line)
    read = json_lines.records[ACCEPTED.index(case)]["input"]
    # Also that 1 is not true, -0.0 is not 0 and an integer is no float, which compare as equal.
    assert repr(read) == repr({"prompt": value} if isinstance(value, str) else value)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_line_that_is_no_record_fails_at_its_line_column_and_byte(case: Refused, json_lines: Ended) -> None:
    assert json_lines.code == 1
    position = len(ACCEPTED) + REFUSED.index(case)
    before = sum(len(each.line) + 1 for each in (*ACCEPTED, *REFUSED)[:position])
    error = json_lines.records[position]["error"]
    assert isinstance(error, dict)
    at = f"stdin, line {position + 1}, column {case.column}, byte {before + case.byte}: "
    assert error["message"].startswith(at + (case.reason or "not JSON: "))
    assert error["type"] == "InvalidInput"


# -- tables -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tables(place: Path) -> tuple[Ended, Mapping[str, list[object]]]:
    names = [f"{number}.csv" for number in range(len(TABLES))]
    done = run(place, *ALL, "--max-record-bytes", str(LIMIT), *names)
    records = iter(done.records)
    rows = {
        table.name: [row(next(records), name) for _ in table.rows] for table, name in zip(TABLES, names, strict=True)
    }
    assert list(records) == []
    return done, rows


def row(record: Mapping[str, object], name: str) -> object:
    error = record["error"]
    return str(error["message"]).removeprefix(name) if isinstance(error, dict) else record["input"]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_gives_its_rows_and_a_bad_one_spoils_no_other(
    table: Table, tables: tuple[Ended, Mapping[str, list[object]]]
) -> None:
    done, rows = tables
    assert done.code == 1
    assert rows[table.name] == [
        f", line {each.line}, byte {each.byte}: {each.reason}" if isinstance(each, Fault) else each
        for each in table.rows
    ]


# -- rules --------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """A run with flags: its input, the outputs of its ok records, its code, and lines that it says."""

    condition: str
    args: tuple[str, ...]
    stdin: bytes
    code: int
    prompts: tuple[str, ...]
    said: tuple[str, ...] = ()


JSONL = ("--input-format", "jsonl")
STRICT = " (strict: the first such record ends the run)"
EARLY = "the compressed data ends too early, after 21 bytes, 5 unpacked; the records up to there were read"
BROKEN = b'{"prompt":"a"}\n?\n?\n{"prompt":"b"}\n?\n'

RULES = (
    Rule("--encoding", ("--encoding", "latin-1"), b"h\xe9\nx\n", 0, ("hé", "x")),
    Rule("--encoding that is none", ("--encoding", "klingon"), b"x\n", 2, ()),
    Rule("--keep-empty", ("--keep-empty",), b"a\n\n b\n", 0, ("a", "", " b")),
    Rule("empty input", (), b"", 0, (), ("warning: no records in stdin",)),
    Rule(
        "UTF-16 from a pipe",
        (),
        "hello\n".encode("utf-16"),
        4,
        (),
        ("error: " + "stdin: this is UTF-16 or UTF-32; convert it to UTF-8 first: iconv -f UTF-16 -t UTF-8 …",),
    ),
    Rule("every record failed", JSONL, b"?\n", 4, ()),
    Rule("no prompt where one is named", ("--field", "q", *JSONL), b'{"q":"a"}\n{"r":"b"}\n{"q":1}\n', 1, ("a",)),
    Rule(
        "--strict, invalid JSON",
        ("--strict", *JSONL),
        BROKEN,
        4,
        ("a",),
        (f"error: stdin, line 2, column 1, byte 15: not JSON: unexpected character, expected a JSON value{STRICT}",),
    ),
    Rule(
        "--strict, duplicate keys",
        ("--strict",),
        b'{"prompt":"a"}\n{"prompt":"b","x":1,"x":2}\n',
        4,
        ("a",),
        (f"error: stdin, line 2, column 21, byte 35: the key 'x' comes twice in one object{STRICT}",),
    ),
    Rule("--strict, nothing wrong", ("--strict",), b"a\nb\n", 0, ("a", "b")),
    Rule(
        "--max-bad-items N",
        ("--max-bad-items", "2", *JSONL),
        BROKEN * 2,
        3,
        ("a", "b"),
        ("stopped: 3 of 5 records could not be read, max_bad_items is 2",),
    ),
    Rule("--max-bad-items N, as many", ("--max-bad-items", "3", *JSONL), BROKEN, 1, ("a", "b")),
    Rule(
        "bad records, the default",
        JSONL,
        b"?\n" * 150,
        3,
        (),
        ("stopped: 101 of 101 records could not be read, max_bad_items is 100, or 10% if that is more",),
    ),
    Rule(
        "compressed stdin that ends early",
        (),
        gzip.compress(b"a\nb\nc")[:-4],
        4,
        ("a", "b"),
        (f"error: stdin: {EARLY}",),
    ),
    Rule("--shard", ("--shard", "2/2", "-n", "3"), b"a\nb\nc\nd\n", 0, ("b",), ("share 2 of 2: 1 of 3 records",)),
    Rule("--shard that is none", ("--shard", "3/2"), b"a\n", 2, ()),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.condition)
def test_a_rule_of_reading_holds(rule: Rule, place: Path) -> None:
    done = run(place, *rule.args, stdin=rule.stdin)
    assert done.code == rule.code, done.err
    told = tuple(next(iter(fields(record).values())) for record in done.records if record["status"] == "ok")
    assert told == rule.prompts
    assert [line for line in rule.said if line not in done.words] == []
    assert "Traceback" not in done.err


def fields(record: Mapping[str, object]) -> Mapping[str, object]:
    value = record["input"]
    assert isinstance(value, dict)
    return value


# -- outputs ------------------------------------------------------------------------------------------------------


def test_an_output_that_would_destroy_something_or_cannot_be_made_is_refused(place: Path, tmp_path: Path) -> None:
    source, kept = tmp_path / "in.txt", tmp_path / "kept.jsonl"
    source.write_text("one\n")
    kept.write_text("precious\n")
    os.link(source, tmp_path / "hard.txt")
    (tmp_path / "soft.txt").symlink_to(source)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    cases = [
        ("in.txt", f"{tmp_path}/in.txt: is the input {source}; write to another file"),
        ("hard.txt", f"{tmp_path}/hard.txt: is the input {source}; write to another file"),
        ("soft.txt", f"{tmp_path}/soft.txt: is the input {source}; write to another file"),
        ("", f"{tmp_path}: is a directory; name a file in it, such as {tmp_path}/out.jsonl"),
        ("no/out.jsonl", f"{tmp_path}/no/out.jsonl: the directory {tmp_path}/no does not exist"),
        *([] if os.geteuid() == 0 else [("closed/out", f"{tmp_path}/closed/out: permission denied")]),
    ]
    for name, said in cases:
        done = run(place, source, "-o", tmp_path / name, "--overwrite")
        assert (done.code, done.out, done.words) == (4, b"", [f"error: {said}"])
    done = run(place, source, "-o", kept)
    assert (done.code, done.words[0].startswith(f"error: {kept}: exists; ")) == (4, True)
    assert (source.read_text(), kept.read_text()) == ("one\n", "precious\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_stdout_ends_with_74(place: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = process(place, stdin=b"one\n", stdout=full)
    assert (done.code, done.words[1]) == (74, "error: stdout: writing failed: no space left on device")


def test_a_reader_who_leaves_ends_the_run_with_141_and_no_word(place: Path) -> None:
    with Running("run", place / "p.yaml", cwd=place) as running:
        running.feed("".join(f"{number}\n" for number in range(2000)))
        running.record()
        running.close_output()
        assert running.wait() == 141
    assert [line for line in running.words if "error" in line or "Traceback" in line] == []


# -- standard streams ---------------------------------------------------------------------------------------------


def process(
    place: Path, *args: str | Path, stdin: bytes = b"", stdout: object = subprocess.PIPE, **how: object
) -> Ended:
    """Run the command with its descriptors, limits or environment as the test wants them."""
    done = subprocess.run(
        [*COMMAND, "run", "-k", "p.yaml", *map(str, args)],
        **{"input": stdin, "stdout": stdout, "stderr": subprocess.PIPE, "cwd": place, "env": environment()} | how,
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, done.stdout or b"", (done.stderr or b"").decode())


@pytest.mark.parametrize(
    ("closed", "args", "code", "said"),
    [
        ((0,), (), 2, "error: no input: stdin is closed; name a file, or give stdin one: … < prompts.txt"),
        ((0,), ("-",), 4, "error: stdin is closed; name an input file, or give stdin one: … < prompts.txt"),
        ((1,), (), 74, "error: stdout is closed; give an output file (-o FILE)"),
        ((2,), (), 0, ""),
        ((0, 1, 2), ("end.txt", "-o", "closed.jsonl"), 0, ""),
    ],
)
def test_a_standard_stream_that_is_closed_is_told_or_not_missed(
    closed: tuple[int, ...], args: tuple[str, ...], code: int, said: str, place: Path
) -> None:
    def close() -> None:
        for number in closed:
            os.close(number)

    done = process(place, *args, stdin=b"one\n", preexec_fn=close)
    assert (done.code, [said] if said else []) == (code, done.words[:1])
    if not code:
        out = (place / "closed.jsonl").read_bytes() if 1 in closed else done.out
        assert [record["status"] for record in Ended(0, out, "").records] == ["ok"] * (2 if 1 in closed else 1)


def test_a_terminal_as_stdin_without_input_is_wrong_usage(place: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = on(theirs, place)
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.code, done.words[0].startswith("error: no input: stdin is a terminal.")) == (2, True)


def on(stdin: int, place: Path) -> Ended:
    done = subprocess.run(
        [*COMMAND, "run", "p.yaml"],
        stdin=stdin,
        capture_output=True,
        cwd=place,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


# -- environments -------------------------------------------------------------------------------------------------

BARE = {
    "LANG": "C",
    "LC_ALL": "C",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONUTF8": "0",
    "TZ": "Antarctica/Troll",
    "TMPDIR": "/nonexistent",
}


def test_nothing_depends_on_locale_home_terminal_time_zone_or_assertions(place: Path) -> None:
    usual = run(place, "--backend", "asyncio", stdin="é😀\nx\n".encode())
    bare = {name: value for name, value in environment(**BARE).items() if name not in ("HOME", "USER", "LOGNAME")}
    done = process(place, stdin="é😀\nx\n".encode(), env=bare)
    assert (done.code, done.out) == (0, usual.out)
    assert "\x1b" not in done.err


def test_few_open_files_are_enough(place: Path) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))

    done = process(place, stdin=b"x\n" * 500, preexec_fn=few)
    assert (done.code, len(done.records)) == (0, 500)


# -- files that change while they are read ------------------------------------------------------------------------

ROW = b"x" * 10_000 + b"\n"
ROWS = 60
SHRANK = "shrank while it was read, from 600,060 to 400,040 bytes; run it again when nobody writes to it"


@pytest.mark.parametrize(
    ("change", "code", "records", "said"),
    [
        ("grow", 0, ROWS + 1, "big.txt: grew while it was read, from 600,060 to 610,061 bytes"),
        (
            "shrink",
            4,
            None,
            f"error: big.txt: {SHRANK}",
        ),
        ("delete", 0, ROWS, "big.txt: was deleted while it was read; it was read to its end all the same"),
        ("delete the next", 4, ROWS, "error: next.txt: no such file"),
    ],
)
def test_a_file_that_changes_while_it_is_read_is_told_of(
    change: str, code: int, records: int | None, said: str, place: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big.txt"
    big.write_bytes(ROW * ROWS)
    (tmp_path / "next.txt").write_text("")
    with Running("run", place / "p.yaml", "big.txt", "next.txt", "--max-in-flight", "1", cwd=tmp_path) as running:
        running.record()  # the pipe takes a few more, so the end of the file is not near
        match change:
            case "grow":
                with big.open("ab") as file:
                    file.write(ROW)
            case "shrink":
                os.truncate(big, 40 * len(ROW))
            case "delete":
                big.unlink()
            case _:
                (tmp_path / "next.txt").unlink()
        rest = running.rest()
        assert running.wait() == code
    assert said in running.words
    assert records is None or 1 + rest.count(b"\n") == records


# -- memory -------------------------------------------------------------------------------------------------------


def peak(place: Path, feed: Callable[[int], None]) -> tuple[int, int, bytes]:
    """Run with what `feed` writes into its stdin; return the code, the most memory in bytes, and the output."""
    process = subprocess.Popen(
        [*COMMAND, "run", "-k", "p.yaml"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=place, env=environment()
    )
    assert process.stdin is not None
    assert process.stdout is not None
    writer = threading.Thread(target=feed, args=(process.stdin.fileno(),))
    writer.start()
    writer.join()
    process.stdin.close()
    out = process.stdout.read()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss * 1024, out


def test_a_line_of_100_mb_fails_alone_and_is_never_in_memory(place: Path) -> None:
    def short(fd: int) -> None:
        os.write(fd, b"one\n")

    def long(fd: int) -> None:
        piece = b"x" * 65536
        for _ in range(100 * 1024 * 1024 // len(piece)):
            write(fd, piece)
        write(fd, b"\none\n")

    _, least, _ = peak(place, short)
    code, most, out = peak(place, long)
    first, second = Ended(code, out, "").records
    assert (code, first["status"], second["output"]) == (1, "failed", {"prompt": "one"})
    assert most - least < 24 * 1024 * 1024


def write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell a process's memory so")
def test_an_endless_stdin_is_read_at_constant_memory(place: Path) -> None:
    """A time slice of an input without end: what comes in it is five times what the memory may grow by."""
    block = "".join(f"line {number} {'x' * 4000}\n" for number in range(500))
    sizes: list[int] = []
    with Running("run", place / "p.yaml", "-o", "/dev/null", "-q") as running:
        for fed in range(25):
            if fed == 5:
                sizes.append(resident(running.process.pid))
            running.feed(block)
        sizes.append(resident(running.process.pid))
        running.signal(signal.SIGINT)  # the input does not end before the process has
        assert running.wait() == 130
    assert sizes[1] - sizes[0] < 20 * len(block) / 5
    assert 20 * len(block) > 40_000_000


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
