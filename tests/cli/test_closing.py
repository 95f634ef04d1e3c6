"""What is said of failed and partial records, one by one and when the run has ended."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.closing import Failures
from pipeline.core.errors import Failure
from pipeline.core.record import Record, Status
from pipeline.core.usage import Usage
from tests.cli.command import penstock


def record(id: str, status: Status = "failed", error: Failure | None = None, missing: tuple[str, ...] = ()) -> Record:
    return Record(id, 0, status, None, {}, error, Usage(), None, "x", missing)


def test_each_kind_of_failure_is_shown_once_and_five_of_them_at_most() -> None:
    failures = Failures()
    assert failures.hear(record("ok", "ok")) is None
    assert failures.lines() == []
    for number in range(7):
        for repeat in range(8 - number):
            said = failures.hear(record(f"{number}.{repeat}", error=Failure(f"Kind{number}", "say", "why")))
            assert said == f"{number}.{repeat}: Kind{number} (say): why"
    assert failures.lines() == [
        f"failed: {', '.join(f'{8 - number} Kind{number} (say)' for number in range(6))}, and 1 more reasons",
        *(f"first: {number}.0: Kind{number} (say): why" for number in range(5)),
    ]


def test_what_partial_records_lack_is_counted_and_told() -> None:
    failures = Failures()
    why = Failure("Partial", None, "views.c: ItemError: no")
    assert failures.hear(record("a", "partial", why, ("views.c",))) == "a: partial: views.c: ItemError: no"
    assert failures.hear(record("b", "partial", None, ("views.b", "views.c"))) == "b: partial: without views.b, views.c"
    assert failures.lines() == ["missing: 2 views.c, 1 views.b"]


def test_a_run_that_went_to_its_end_is_done_even_if_every_item_failed(hanging: Path) -> None:
    every = penstock("run", hanging, stdin=b"fail 1\nfail 2\n")
    assert (every.code, every.words[-1].split(" · ")[0]) == (4, "done: 2 failed")


def test_with_v_a_failure_in_the_users_code_has_its_place_and_the_record_does_not(tmp_path: Path) -> None:
    code = tmp_path / "penstock_mine.py"
    code.write_text("import json\n\n\ndef work(value):\n    return json.loads(value)\n")
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nstages: [{map: m, call: 'penstock_mine:work'}]\n")
    args = ("run", file, "--allow-import", "./penstock_mine")
    done = penstock(*args, "-v", stdin=b"not json\n", cwd=tmp_path)
    said = next(line for line in done.words if "JSONDecodeError (m)" in line)
    assert said.endswith(f" [{code}:5]")
    assert b"penstock_mine" not in done.out
    quiet = penstock(*args, stdin=b"not json\n", cwd=tmp_path)
    assert str(code) not in quiet.err


def test_what_a_tap_did_not_keep_up_with_is_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "penstock_slow.py").write_text("import time\n\n\ndef look(value):\n    time.sleep(30)\n")
    (tmp_path / "penstock_bad.py").write_text("def look(value):\n    raise ValueError('no')\n")
    for module, tap in (("slow", "blocking: true, buffer: 1"), ("bad", "buffer: 64")):
        file = tmp_path / f"{module}.yaml"
        file.write_text(f"version: 1\nstages: [{{tap: look, call: 'penstock_{module}:look', {tap}}}]\n")
        done = penstock("run", file, "--allow-import", f"./penstock_{module}", stdin=b"a\nb\nc\n", cwd=tmp_path)
        said = [line for line in done.words if "tap 'look'" in line]
        expected = "dropped: 3 of 3 that passed tap 'look'"
        assert said == [
            expected if module == "slow" else "tap 'look': its function raised 3 times, last ValueError: no"
        ]
        assert done.code == 0
