"""What is said of failed and partial records, one by one and when the run has ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import Pipeline, Statistics
from pipeline.cli.closing import Failures, closing, remarked
from pipeline.core.errors import Failure
from pipeline.core.record import Record, Status
from pipeline.core.usage import Cost, Usage
from stages import map
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


async def ended() -> Statistics:
    async with Pipeline(map(str)).open(["a"]) as run:
        _ = [record async for record in run.results]
    return run.statistics()


async def test_what_is_to_be_said_of_answers_and_tools_is_one_line() -> None:
    now = await ended()
    assert remarked(now) == []
    remarks = {"cached": 100, "tool_failed": 4, "own": 2, "fallback": 12, "refused": 3, "truncated": 1200}
    (said,) = remarked(replace(now, remarks=remarks))
    assert said == (
        "note: 1,200 answers were cut at their token limit; 3 were refusals; 12 came from a fallback model; "
        "100 came from the cache; 2 are own; 4 calls of tools failed"
    )
    ones = {"own": 1, "hedged": 1, "usage_missing": 1, "usage_odd": 1, "model_differs": 1, "refused": 1, "truncated": 1}
    (said,) = remarked(replace(now, remarks=ones))
    assert said == (
        "note: 1 answer was cut at its token limit; 1 was a refusal; 1 came from another model than was asked; "
        "1 had a token count that cannot be right; 1 had no token count; 1 had a second attempt beside the first; "
        "1 is own"
    )
    assert remarked(replace(now, remarks={"tool_failed": 1})) == ["note: 1 call of tools failed"]
    assert remarked(replace(now, remarks={"not_kept": 1})) == [
        "note: 1 result is no plain JSON, so a resume would ask for it again"
    ]
    assert remarked(replace(now, remarks={"not_kept": 2})) == [
        "note: 2 results are no plain JSON, so a resume would ask for them again"
    ]


@pytest.mark.parametrize(
    ("cost", "known", "unpriced", "said"),
    [
        (Cost(0.25, "given"), 0.25, 0, "$0.2500 at given prices"),
        (Cost(0.0000064, "given"), 0.0000064, 0, "$0.000006 at given prices"),
        (Cost(2.5, "given + simulated"), 2.5, 0, "$2.50 (given + simulated)"),
        (Cost(0.0, "simulated"), 0.0, 0, "$0.00 (simulated)"),
        (Cost(None, "given + unknown price"), 0.25, 1, "at least $0.2500 (1 request has no known price)"),
        (Cost(None, "given + unknown price"), 2.5, 1200, "at least $2.50 (1,200 requests have no known price)"),
        (Cost(None, "unknown price"), 0.0, 3, "cost unknown"),
        (None, 0.0, 0, "cost unknown"),
    ],
)
async def test_the_last_line_says_what_is_known_of_the_cost(
    cost: Cost | None, known: float, unpriced: int, said: str
) -> None:
    now = replace(await ended(), usage=Usage(1, 2, requests=1), cost=cost, known_usd=known, unpriced=unpriced)
    assert closing("done", now, 1.0) == f"done: 1 ok · 1.0 s · 1 request, 1 token in, 2 out · {said}"
    assert "2 requests, 0 tokens in" in closing("done", replace(now, usage=Usage(requests=2)), 1.0)


def test_what_became_of_answers_is_said_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "version: 1\nmodels:\n  m: {use: sim/small, max_output_tokens: 2, fail_when: no, fallback: sim/echo}\n"
        "stages: [{agent: say}]\n"
    )
    done = penstock("run", file, stdin=b"a\nb\nc\n")
    assert done.words[-2] == "note: 3 answers were cut at their token limit"
    assert "rest of the input" not in done.words[-1]


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
