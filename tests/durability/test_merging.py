"""However records are spread over outputs, and however little memory there is, merged in order they are the whole."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.errors import SinkError, WriteError
from pipeline.durability.merging import Gaps, check, lines, whole
from pipeline.durability.merging.outputs import OutputFile
from pipeline.durability.merging.sorting import MOST_RUNS, SortedRuns
from pipeline.durability.merging.whole import whole_file


@given(entries=st.lists(st.binary(max_size=12), max_size=200), memory=st.sampled_from([0, 100, 1000, 10**6]))
def test_entries_come_out_sorted_whatever_the_memory(entries: list[bytes], memory: int) -> None:
    with SortedRuns(memory) as sorting:
        for entry in entries:
            sorting.add(entry)
        assert list(sorting.entries()) == sorted(entries)


def test_many_runs_become_one_so_that_few_files_are_open() -> None:
    numbers = [(number * 7919 % 100).to_bytes(2) for number in range(100)]
    with SortedRuns(0) as sorting:
        for number in numbers:
            sorting.add(number)
            assert len(sorting._runs) <= MOST_RUNS
        assert list(sorting.entries()) == sorted(numbers)


def test_a_full_disk_is_told_with_the_place_of_the_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> object:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with SortedRuns(0) as sorting, pytest.raises(WriteError, match=r"^temporary files in .*: no space left on device$"):
        sorting.add(b"x")


def record(index: int, child: int | None) -> bytes:
    if child is None:
        return json.dumps({"id": f"r{index}", "index": index, "status": "ok"}).encode() + b"\n"
    return (
        json.dumps({"id": f"r{index}#{child}", "index": index, "status": "ok", "parent": f"r{index}"}).encode() + b"\n"
    )


roots = st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=12)


@given(roots=roots, data=st.data(), memory=st.sampled_from([0, 300, 10**6]))
def test_records_spread_over_outputs_in_any_order_are_put_in_input_order(
    roots: list[int | None], data: st.DataObject, memory: int
) -> None:
    whole = [
        record(index, child)
        for index, count in enumerate(roots)
        for child in ([None] if count is None else range(count))
    ]
    shuffled = data.draw(st.permutations(whole))
    where = data.draw(st.lists(st.integers(0, 2), min_size=len(whole), max_size=len(whole)))
    files = [
        OutputFile(f"f{place}", BytesIO(b"".join(r for r, at in zip(shuffled, where, strict=True) if at == place)))
        for place in range(3)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SortedRuns.__init__, "__defaults__", (memory,))
        checked = check(files)
        gaps = Gaps()
        assert list(lines(checked, ordered=True, gaps=gaps)) == whole
        assert sorted(lines(checked, ordered=False)) == sorted(whole)
    assert (gaps.missing, gaps.shared) == (0, 0)
    assert checked.statuses == ({"ok": len(whole)} if whole else {})


@given(present=st.sets(st.integers(0, 60)))
def test_every_place_before_the_last_record_that_has_none_is_counted(present: set[int]) -> None:
    gaps = Gaps()
    file = OutputFile("f", BytesIO(b"".join(record(index, None) for index in sorted(present))))
    list(lines(check([file]), ordered=True, gaps=gaps))
    missing = [index for index in range(max(present, default=0)) if index not in present]
    assert (gaps.missing, gaps.examples) == (len(missing), missing[:10])


def test_a_file_that_came_in_between_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with ExitStack() as stack:
        said = r"out: exists by now; replace it \(--overwrite\), or name another file$"
        stack.enter_context(pytest.raises(SinkError, match=said))
        write = stack.enter_context(whole_file(str(path), overwrite=False, inputs=()))
        write(b"ours")
        path.write_text("theirs")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out", "theirs")]


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_links_gets_a_name_by_renaming(
    taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(whole.os, "link", refused)
    path = tmp_path / "out"
    with ExitStack() as stack:
        if taken:
            stack.enter_context(pytest.raises(SinkError, match="exists by now"))
        write = stack.enter_context(whole_file(str(path), overwrite=False, inputs=()))
        write(b"ours")
        if taken:
            path.write_text("theirs")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out", "theirs" if taken else "ours")]


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_file(str(tmp_path / "link"), overwrite=True, inputs=()) as write:
        write(b"new")
    assert ((tmp_path / "real").read_text(), (tmp_path / "link").is_symlink()) == ("new", True)


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    with ExitStack() as stack:
        stack.enter_context(pytest.raises(RuntimeError))
        write = stack.enter_context(whole_file(str(path), overwrite=True, inputs=()))
        write(b"new")
        raise RuntimeError
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("out", "old")]
