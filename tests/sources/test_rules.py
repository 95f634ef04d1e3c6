"""How inputs are read when more is asked for: shares, encodings, strictness, and how much may be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import DefinitionError, RunStopped, SourceError
from pipeline.core.record import Input
from stages.sources import Inputs
from stages.sources.change import Change, Snapshot
from stages.sources.charset import charset
from stages.sources.repeats import repeated_key
from stages.sources.share import share_of
from stages.sources.tolerance import Tolerance


async def read(inputs: Inputs) -> list[Input]:
    async with inputs.open() as records:
        return [record async for record in records]


# -- shares -----------------------------------------------------------------------------------------------------


@given(name=st.text(max_size=20), shares=st.integers(1, 1000))
def test_every_name_is_in_one_share(name: str, shares: int) -> None:
    assert 1 <= share_of(name, shares) <= shares


def test_shares_are_the_same_for_ever_and_about_equal() -> None:
    assert [share_of(name, 4) for name in ("a", "b", "c", "\ud800")] == [4, 2, 4, 1]
    counts = [sum(share_of(f"record {n}", 8) == share for n in range(8000)) for share in range(1, 9)]
    assert min(counts) > 900


LINES = b"".join(
    [
        b"one\ntwo\none\n",
        b'{"id":"k","prompt":"p"}\n{"id":"k","prompt":"q"}\n{"id":"k#2","prompt":"r"}\n',
        b"{broken\n\xff\n{broken\n",
        b"".join(b'"number %d"\n' % (number % 30) for number in range(60)),
    ]
)


@pytest.mark.parametrize("shares", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("limit", [None, 20])
async def test_shares_are_the_input_each_record_once_at_its_place_and_equal_ones_together(
    shares: int, limit: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "a"
    path.write_bytes(LINES.replace(b"one\n", b'"one"\n').replace(b"two\n", b'"two"\n'))
    whole = await read(Inputs((str(path),), "jsonl", limit=limit))
    parts = [
        await read(Inputs((str(path),), "jsonl", limit=limit, shard=(share, shares))) for share in range(1, shares + 1)
    ]
    merged = sorted((record for part in parts for record in part), key=lambda record: record.position or 0)
    assert [record.position for record in merged] == list(range(len(whole)))
    assert [(record.id, record.value) for record in merged] == [(record.id, record.value) for record in whole]
    where = {record.id: share for share, part in enumerate(parts) for record in part}
    assert all(where[f"{id}#2"] == share for id, share in where.items() if f"{id}#2" in where and id != "k#2")


async def test_a_share_is_told_of_and_does_not_move_when_the_input_grows(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    lines = [f"line {number}\n" for number in range(50)]
    path.write_text("".join(lines))
    said: list[str] = []
    before = await read(Inputs((str(path),), shard=(2, 3), notice=said.append))
    assert said == [f"share 2 of 3: {len(before)} of 50 records"]
    path.write_text("".join(["new\n", *reversed(lines)]))
    after = await read(Inputs((str(path),), shard=(2, 3)))
    assert {record.id for record in before} <= {record.id for record in after}
    assert len(after) - len(before) in (0, 1)


# -- encodings --------------------------------------------------------------------------------------------------


QUOTE = 'a quote inside a cell without quotes; write "…" around the cell and "" inside it'


@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
async def test_records_in_another_encoding_are_read_and_faults_keep_their_bytes(format: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    rows = {
        "text": "h\xe9llo\n\u20ac?\nfine\n",
        "jsonl": '{"prompt":"h\xe9llo"}\n{"prompt":"\u20ac?"}\n{"prompt":"fine"}\n{"\u20ac": x}\n',
        "csv": 'prompt\nh\xe9llo\n"\u20ac?"\nfine\n\u20ac"\n',
    }[format]
    path.write_bytes(rows.encode("cp1252").replace(b"?", b"\x81"))
    records = await read(Inputs((str(path),), format, encoding="Windows-1252"))  # pyright: ignore[reportArgumentType]
    told = [record.defect.message if record.defect else record.prompt for record in records]
    assert (
        told
        == {
            "text": ["h\xe9llo", f"{path}, line 2, byte 7: byte 0x81 is not cp1252", "fine"],
            "jsonl": [
                "h\xe9llo",
                f"{path}, line 2, byte 31: byte 0x81 is not cp1252",
                "fine",
                f"{path}, line 4, column 7, byte 59: not JSON: unexpected character, expected a JSON value",
            ],
            "csv": [
                "h\xe9llo",
                f"{path}, line 3, byte 15: byte 0x81 is not cp1252",
                "fine",
                f"{path}, line 5, byte 24: {QUOTE}",
            ],
        }[format]
    )
    assert (
        records[1].value == {"text": "\u20ac\\x81", "jsonl": '{"prompt":"\u20ac\\x81"}', "csv": '"\u20ac\\x81"'}[format]
    )


@pytest.mark.parametrize(
    "name", ["latin-1", "cp1252", "shift_jis", "gb18030", "big5", "euc-kr", "koi8-r", "utf8", "ascii"]
)
def test_encodings_in_which_ascii_is_ascii_are_taken(name: str) -> None:
    found = charset(name)
    assert found.text(b'{"a,b\n') == '{"a,b\n'
    assert found.is_utf8 is (name == "utf8")


@pytest.mark.parametrize(
    "name", ["utf-16", "utf-32-le", "utf-7", "cp037", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "hex"]
)
def test_encodings_that_cannot_be_cut_into_lines_are_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(ValueError, match=r" cannot be read line by line; convert it first: iconv -f .* -t UTF-8$"):
        charset(name)


@pytest.mark.parametrize("name", ["", "klingon", "a\0b", "x" * 1000])
def test_encodings_that_nobody_knows_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"^there is no encoding '"):
        charset(name)


# -- keys that come twice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'{"a":1,"b":2}', None),
        (b"{}", None),
        (b'{"a":"x:y","b":{"a":[{"a":1},{"a":2}]}}', None),
        (b'{"a":"\\":","b":":"}', None),
        (b'{"a":1,"a":2}', ("a", 7)),
        (b'{"a":[{"b":1, "c":{}, "b" : 2}]}', ("b", 22)),
        (b'{"a":1,"\\u0061":2}', ("a", 7)),
        ('{"é":{"ü":1},"é":":"}'.encode(), ("é", 15)),
        (b'{"":1,"":2}', ("", 6)),
    ],
)
def test_a_key_that_comes_twice_in_one_object_is_found(data: bytes, found: tuple[str, int] | None) -> None:
    assert repeated_key(data, json.loads(data)) == found


async def test_repeated_keys_are_told_of_once_and_are_a_defect_if_strict(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt":"x"}\n{"prompt":"y","prompt":"z"}\n{"prompt":"y","prompt":"v"}\n')
    said: list[str] = []
    records = await read(Inputs((str(path),), notice=said.append))
    assert [record.prompt for record in records] == ["x", "z", "v"]
    fault = f"{path}, line 2, column 15, byte 29: the key 'prompt' comes twice in one object"
    assert said == [f"{path}: the prompt is the field 'prompt'", f"{fault}; the last one counts (said once)"]
    with pytest.raises(SourceError) as caught:
        await read(Inputs((str(path),), strict=True))
    assert str(caught.value) == f"{fault} (strict: the first such record ends the run)"


# -- how much may be wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "bad", "read", "exceeded"),
    [
        (None, 100, 100, False),
        (None, 101, 1009, True),
        (None, 101, 1010, False),
        (3, 3, 3, False),
        (3, 4, 10_000, True),
        (0, 1, 1, True),
        (0.1, 19, 19, False),
        (0.1, 2, 20, False),
        (0.1, 3, 20, True),
        (1.0, 500, 500, False),
        (0.0, 1, 1, True),
    ],
)
def test_so_many_bad_records_are_too_many(asked: float | None, bad: int, read: int, exceeded: bool) -> None:
    assert Tolerance.of(asked).exceeded(bad, read) is exceeded


def test_a_tolerance_is_told_as_it_was_asked_for() -> None:
    told = [str(Tolerance.of(asked)) for asked in (None, 3, 1000, 0.05, 0.0)]
    assert told == ["100, or 10% if that is more", "3", "1,000", "5%", "0"]


async def test_too_many_bad_records_end_the_run_after_the_one_too_many(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt":"x"}\n' + b"?\n" * 5)
    async with Inputs((str(path),), max_bad_items=2).open() as records:
        got = [await anext(records) for _ in range(4)]
        for _ in range(2):
            with pytest.raises(RunStopped) as caught:
                await anext(records)
            assert caught.value.reason == "3 of 4 records could not be read, max_bad_items is 2"
    assert [record.defect is None for record in got] == [True, False, False, False]


async def test_strict_counts_only_the_own_share(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\n\xff\n")
    outcomes = []
    for share in range(1, 5):
        try:
            outcomes.append(len(await read(Inputs((str(path),), strict=True, shard=(share, 4)))))
        except SourceError:
            outcomes.append(-1)
    assert sorted(outcomes) == [-1, 0, 0, 1]


async def test_blank_lines_are_prompts_if_they_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\none\n \r\n")
    assert [record.prompt for record in await read(Inputs((str(path),), keep_empty=True))] == ["", "one", " "]
    assert [record.prompt for record in await read(Inputs((str(path),)))] == ["one"]


def test_options_that_cannot_be_are_refused_together() -> None:
    with pytest.raises(DefinitionError) as caught:
        Inputs(encoding="utf-16", max_bad_items=-1, shard=(0, 3))
    assert str(caught.value).split("\n") == [
        "pipeline, max_bad_items: cannot be -1 (a number of records, or a share such as 0.05)",
        "pipeline, shard: cannot be 0 of 3 (the first of four shares is 1 of 4, the last 4 of 4)",
        "pipeline, encoding: utf-16 cannot be read line by line; convert it first: iconv -f utf-16 -t UTF-8",
    ]


# -- files that change while they are read ----------------------------------------------------------------------


def changed(path: Path, change: str) -> Change | None:
    """Open a file of 10 bytes, read it to the end, with `change` happening before the last byte."""
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    try:
        before = Snapshot.of(fd)
        assert before is not None
        taken = len(os.read(fd, 5))
        match change:
            case "grown":
                with path.open("ab") as file:
                    file.write(b"more")
            case "shrunk":
                os.truncate(path, 3)
            case "cut and grown":
                os.truncate(path, 3)
                path.write_bytes(b"another text")
            case "rewritten":
                path.write_bytes(b"9876543210")
                os.utime(path, ns=(1, 1))
            case "deleted":
                path.unlink()
            case "replaced":
                path.rename(path.with_suffix(".old"))
                path.write_bytes(b"0123456789")
            case _:
                pass
        while piece := os.read(fd, 5):
            taken += len(piece)
        if change == "grown at the end":
            with path.open("ab") as file:
                file.write(b"more")
        return before.change(taken, str(path))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("change", "said", "harmful"),
    [
        ("nothing", None, False),
        ("grown", "grew while it was read, from 10 to 14 bytes", False),
        (
            "grown at the end",
            "grew while it was read, from 10 to 14 bytes; what came after byte 10 was not read",
            False,
        ),
        ("shrunk", "shrank while it was read, from 10 to 3 bytes", True),
        ("rewritten", "was written to while it was read", True),
        ("deleted", "was deleted while it was read; it was read to its end all the same", False),
        ("replaced", "was replaced while it was read; what was read is the file before", False),
    ],
)
def test_what_became_of_a_file_is_said_and_whether_it_did_harm(
    change: str, said: str | None, harmful: bool, tmp_path: Path
) -> None:
    assert changed(tmp_path / "a", change) == (None if said is None else Change(said, harmful))


async def test_a_file_that_was_changed_ends_the_run_after_all_inputs_were_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt", tmp_path / "c.txt"]
    for path in paths:
        path.write_text("1\n2\n")
    got: list[str | None] = []
    said: list[str] = []
    async with Inputs(tuple(map(str, paths)), notice=said.append).open() as records:
        got.append((await anext(records)).prompt)
        os.truncate(paths[0], 2)
        with paths[1].open("a") as file:
            file.write("3\n")
        got += [(await anext(records)).prompt for _ in range(6)]
        with pytest.raises(SourceError) as caught:
            await anext(records)
        with pytest.raises(StopAsyncIteration):
            await anext(records)
    assert got == ["1", "2", "1", "2", "3", "1", "2"]
    line = "shrank while it was read, from 4 to 2 bytes; run it again when nobody writes to it"
    assert str(caught.value) == f"{paths[0]}: {line}"
    assert said == []  # b.txt had grown before it was opened


async def test_a_limit_that_ends_the_input_asks_for_no_more_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1\n2\n")
    async with Inputs((str(path),), limit=1).open() as records:
        await anext(records)
        path.write_text("other")
        with pytest.raises(StopAsyncIteration):
            await anext(records)


def test_what_has_no_state_is_not_watched() -> None:
    reading, writing = os.pipe()
    assert Snapshot.of(reading) is None
    os.close(reading)
    os.close(writing)
    with open("/proc/self/stat" if Path("/proc/self/stat").exists() else os.devnull) as made_up:
        before = Snapshot.of(made_up.fileno())
        assert before is None or before.change(100, None) is None
