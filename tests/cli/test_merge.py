"""Outputs of shares are one output again, or it is said which line of which file is in the way."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from tests.cli.command import Ended, Running, penstock

PROMPTS = "".join(f"prompt {number % 25}\n" for number in range(40))
SHARES = 3


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of three shares, the last one not in order, and of the whole input."""
    place = tmp_path_factory.mktemp("shares")
    (place / "in.txt").write_text(PROMPTS)
    for number in range(1, SHARES + 1):
        run(place, "-k", "--shard", f"{number}/{SHARES}", "-o", f"part{number}.jsonl")
    last = place / f"part{SHARES}.jsonl"
    last.write_bytes(b"".join(reversed(last.read_bytes().splitlines(keepends=True))))
    run(place, "-k", "-o", "whole.jsonl")
    return place


def run(place: Path, *flags: str) -> Ended:
    done = penstock("run", "-m", "sim/echo", "in.txt", *flags, cwd=place)
    assert done.code == 0
    return done


PARTS = tuple(f"part{number}.jsonl" for number in range(1, SHARES + 1))


def test_the_shares_merged_in_order_are_the_output_of_the_whole_input_byte_for_byte(
    shares: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    done = penstock("merge", *PARTS, "-k", "-o", out, cwd=shares)
    assert (done.code, done.out, done.words) == (0, b"", ["merged: 40 ok of 3 outputs"])
    assert out.read_bytes() == (shares / "whole.jsonl").read_bytes()
    assert sum((shares / part).read_bytes().count(b"\n") > 0 for part in PARTS) == SHARES


def test_without_order_one_output_comes_after_the_other(shares: Path) -> None:
    done = penstock("merge", "-q", *PARTS, cwd=shares)
    assert (done.code, done.err) == (0, "")
    assert done.out == b"".join((shares / part).read_bytes() for part in PARTS)


def test_compressed_outputs_are_read_and_written_and_equal_records_give_equal_bytes(
    shares: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress((shares / PARTS[0]).read_bytes()))
    outs = [tmp_path / name for name in ("a.jsonl.gz", "b.jsonl.gz")]
    for out in outs:
        assert penstock("merge", packed, *PARTS[1:], "-k", "-o", out, cwd=shares).code == 0
    assert gzip.decompress(outs[0].read_bytes()) == (shares / "whole.jsonl").read_bytes()
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_places_without_a_record_are_counted_and_some_are_named(shares: Path) -> None:
    done = penstock("merge", "-k", *PARTS[:2], cwd=shares)
    here = {record["index"] for record in done.records}
    missing = [index for index in range(max(map(int, map(str, here)))) if index not in here]
    listed = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
    assert done.code == 0
    assert done.words == [
        f"missing: {len(missing)} places of the input without a record (skipped, or in no output): {listed}",
        f"merged: {len(here)} ok of 2 outputs",
    ]


TORN = "its run was killed while it wrote: resume it, or cut the line off"


def line(id: str, index: int, status: str = "ok", **more: object) -> str:
    return json.dumps({"id": id, "index": index, "status": status, **more}) + "\n"


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (
            line("x", 0) + line("y", 1),
            line("z", 0) + line("y", 2) + line("x", 3),
            ["b, line 2: its id is also that of a, line 2", "b, line 3: its id is also that of a, line 1"],
        ),
        (
            line("x", 0),
            line("z", 0) + '{"id":"y","ind',
            ["b, line 2, byte 40: the last line is torn (not JSON, column 15: unexpected end of data); " + TORN],
        ),
        (
            "hello\n",
            '{"prompt":"hello"}\n',
            [
                "a, line 1, byte 0: not JSON, column 1: unexpected character, expected a JSON value",
                "b, line 1, byte 0: not a record: it has no id",
            ],
        ),
        (
            '{"id":"x","status":"ok"}\n',
            line("y", 1, "fine"),
            [
                "a, line 1, byte 0: not a record: it has no index (was it written with less detail?)",
                "b, line 1, byte 0: not a record: its status is none of ok, partial, failed, skipped, cancelled",
            ],
        ),
        (
            "[]\n",
            line("y", -1),
            [
                "a, line 1, byte 0: not a record: no JSON object",
                "b, line 1, byte 0: not a record: it has no index (was it written with less detail?)",
            ],
        ),
    ],
)
def test_what_cannot_be_merged_is_told_with_its_place_and_nothing_is_written(
    a: str, b: str, said: list[str], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text(a)
    (tmp_path / "b").write_text(b)
    done = penstock("merge", "a", "b", "-o", "out", cwd=tmp_path)
    assert (done.code, done.out) == (4, b"")
    assert done.words == [f"error: {said[0]}", *said[1:]]
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_of_many_repeated_ids_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("".join(line(f"id {number}", number) for number in range(25)))
    done = penstock("merge", "a", "a", cwd=tmp_path)
    told = [f"a, line {number}: its id is also that of a, line {number}" for number in range(1, 11)]
    assert (done.code, done.words) == (4, [f"error: {told[0]}", *told[1:], "and 15 more"])


def test_a_last_line_without_its_end_is_whole_if_it_is_a_record(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(line("x", 1, "failed").rstrip("\n"))
    (tmp_path / "b").write_text("\n" + line("y", 0))
    done = penstock("merge", "a", "b", "-k", cwd=tmp_path)
    assert (done.code, done.words) == (0, ["merged: 1 ok, 1 failed of 2 outputs"])
    assert done.out.decode() == line("y", 0) + line("x", 1, "failed")


def test_records_of_one_root_stay_together_in_their_order(tmp_path: Path) -> None:
    children = [line(f"r#{number}", 1, parent="r") for number in range(12)]
    (tmp_path / "a").write_text("".join([children[10], children[9], line("z", 2), children[2]]))
    rest = [child for number, child in enumerate(children) if number not in (2, 9, 10)]
    (tmp_path / "b").write_text("".join([line("o", 0), *rest]))
    done = penstock("merge", "a", "b", "-k", cwd=tmp_path)
    assert done.out.decode() == "".join([line("o", 0), *children, line("z", 2)])
    assert done.words == ["merged: 14 ok of 2 outputs"]


def test_outputs_of_different_inputs_are_noticed_when_they_are_put_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(line("x", 0) + line("y", 1))
    (tmp_path / "b").write_text(line("z", 0))
    done = penstock("merge", "a", "b", "-k", cwd=tmp_path)
    assert (done.code, done.out.decode()) == (0, line("x", 0) + line("z", 0) + line("y", 1))
    assert done.words[0] == "warning: 1 places with records of several ids; are these shares of one input?"


def test_a_damaged_compressed_output_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress("".join(line(f"id {number}", number) for number in range(500)).encode())
    (tmp_path / "a.gz").write_bytes(packed[: len(packed) // 2])
    done = penstock("merge", "a.gz", cwd=tmp_path)
    assert (done.code, done.out) == (4, b"")
    assert done.words[0].startswith("error: a.gz: the compressed data is damaged near byte ")


def test_no_file_is_overwritten_unless_told_and_never_one_that_is_read(shares: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    os.link(shares / PARTS[0], tmp_path / "linked.jsonl")
    cases = (
        (out, (), f"{out}: exists; replace it (--overwrite), or name another file"),
        (tmp_path, (), f"{tmp_path}: is a directory; name a file in it, such as {tmp_path}/merged.jsonl"),
        (tmp_path / "no" / "x", (), f"{tmp_path}/no/x: cannot be written: no such file or directory"),
        (
            tmp_path / "linked.jsonl",
            ("--overwrite",),
            f"{tmp_path}/linked.jsonl: is one of the outputs to merge, {PARTS[0]}; write to another file",
        ),
    )
    for target, flags, said in cases:
        done = penstock("merge", *PARTS, "-o", target, *flags, cwd=shares)
        assert (done.code, done.words) == (4, [f"error: {said}"])
    assert out.read_text() == "precious\n"
    assert penstock("merge", *PARTS, "-k", "-o", out, "--overwrite", cwd=shares).code == 0
    assert out.read_bytes() == (shares / "whole.jsonl").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["linked.jsonl", "out.jsonl"]


def test_outputs_that_are_missing_and_flags_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    missing = penstock("merge", "a", cwd=tmp_path)
    assert (missing.code, missing.words) == (4, ["error: a: no such file or directory"])
    idle = penstock("merge", "a", "--overwrite", cwd=tmp_path)
    assert (idle.code, idle.words[0]) == (2, "error: --overwrite is about a file: name it with -o")
    assert penstock("merge").code == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_ends_with_74(shares: Path) -> None:
    done = penstock("merge", PARTS[0], "-o", "/dev/full", cwd=shares)
    assert (done.code, done.words) == (74, ["error: /dev/full: writing failed: no space left on device"])


def test_pipes_can_be_merged_and_an_interrupt_leaves_nothing_behind(shares: Path, tmp_path: Path) -> None:
    pipe, out = tmp_path / "pipe", tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    with Running("merge", pipe, shares / PARTS[1], "-k", "-o", out) as running:
        with pipe.open("wb") as writing:
            writing.write((shares / PARTS[0]).read_bytes())
        assert running.wait() == 0
    first = penstock("merge", *PARTS[:2], "-k", cwd=shares)
    assert out.read_bytes() == first.out
    with Running("merge", pipe, "-o", tmp_path / "never.jsonl") as running, pipe.open("wb"):
        running.signal()
        assert running.wait() == 130
    assert sorted(os.listdir(tmp_path)) == ["out.jsonl", "pipe"]
