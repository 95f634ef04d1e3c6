"""`--budget` and `pipeline: {budget: …}`: forms, what is said, and the exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import penstock

PRICED = """\
version: 1
models:
  fake: {use: sim/echo, price: {input: 2.5, output: 10}, max_output_tokens: 200}
pipeline: {max_in_flight: 4}
stages:
  - agent: say
"""

LINES = b"a line of forty characters to be priced\n" * 40  # ten tokens in and out: $0.000125


@pytest.fixture
def priced(tmp_path: Path) -> Path:
    path = tmp_path / "priced.yaml"
    path.write_text(PRICED)
    return path


def test_a_budget_that_is_used_up_stops_the_run_with_3(priced: Path) -> None:
    done = penstock("run", priced, "--budget", "0.005usd", stdin=LINES)
    assert done.code == 3
    assert done.words[-4] == (
        "stopped: the budget of $0.005 is used up: $0.0022 of $0.005 is spent, and stage 'say' may need $0.0028 "
        "for the next attempt of sim/echo; raise it to go on"
    )
    assert done.words[-3] == "budget: $0.0022 of $0.005 spent"
    assert done.words[-2].startswith("stopped: 18 ok")
    assert done.words[-2].endswith(" at given prices · the rest of the input was not read")
    assert [record["status"] for record in done.records] == ["ok"] * 18  # what was not paid is not in the output


def test_a_budget_that_is_enough_is_told_at_the_end(priced: Path) -> None:
    done = penstock("run", priced, "--budget", "1usd,1Mtok", stdin=LINES)
    assert done.code == 0
    assert done.words[-2] == "budget: $0.005 of $1.00 spent; 800 of 1,000,000 tokens spent"
    assert done.words[-1].endswith(" · $0.0050 at given prices")


def test_a_budget_may_stand_in_the_file_and_the_flag_comes_first(priced: Path) -> None:
    priced.write_text(PRICED.replace("max_in_flight: 4", "max_in_flight: 4, budget: 3req"))
    of_file = penstock("run", priced, stdin=LINES)
    assert (of_file.code, len(of_file.records)) == (3, 3)
    of_flag = penstock("run", priced, "--budget", "5req", stdin=LINES)
    assert (of_flag.code, len(of_flag.records)) == (3, 5)
    of_set = penstock("run", priced, "--set", "pipeline.budget=7req", stdin=LINES)
    assert (of_set.code, len(of_set.records)) == (3, 7)


def test_a_budget_that_is_too_small_for_anything_sends_nothing(priced: Path) -> None:
    done = penstock("run", priced, "--budget", "100tok", stdin=LINES)
    assert (done.code, done.records) == (3, [])
    assert done.words[1] == (
        "stopped: the budget of 100 tokens is too small for one call: stage 'say' may need 527 tokens for an attempt "
        "of sim/echo; raise it, or lower max_output_tokens"
    )


@pytest.mark.parametrize("text", ["5", "$5", "5eur", "1.5req"])
def test_what_is_no_budget_is_refused_with_the_right_forms(priced: Path, text: str) -> None:
    flag = penstock("run", priced, "--budget", text, stdin=LINES)
    assert flag.code == 2
    assert f"'{text}' is not a budget: write 5usd, 2Mtok, 10kreq or 5usd,2Mtok" in " ".join(flag.err.split())
    priced.write_text(PRICED.replace("max_in_flight: 4", f"budget: {text}"))
    file = penstock("run", priced, stdin=LINES)
    assert file.code == 78
    assert "4:20  E101 'budget' of the pipeline:" in file.words[0]


def test_an_empty_budget_is_told_what_the_shell_did(priced: Path) -> None:
    done = penstock("run", priced, "--budget", "", stdin=LINES)
    assert (done.code, "a shell takes $5 for a variable" in done.err) == (2, True)


def test_what_cannot_be_paid_from_a_budget_is_said_before_anything_is_asked(priced: Path) -> None:
    priced.write_text(PRICED.replace(", max_output_tokens: 200", ""))
    done = penstock("run", priced, "--budget", "5usd", stdin=LINES)
    assert (done.code, done.records) == (78, [])
    assert "E110 'max_output_tokens' of stage 'say': sim/echo may answer at any length" in done.err
    assert "give the agent or its model max_output_tokens: 1000" in done.err
    unpriced = penstock("run", "-m", "vllm/qwen", "--budget", "5usd", stdin=LINES)
    assert (unpriced.code, "vllm/qwen has no known price" in unpriced.err) == (78, True)
    assert penstock("run", "-m", "sim/echo", "--budget", "5usd", stdin=b"free\n").code == 0


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ("{input: 1, outptu: 2}", "'outptu' is nothing that has a price"),
        ("{input: 1}", "output is missing"),
        ("{input: 1, output: -1}", "output is -1"),
        ("{input: 1, output: cheap}", "output is 'cheap'"),
        ("5", "must be a mapping, not the number 5"),
    ],
)
def test_a_price_that_is_none_is_refused_in_its_place(priced: Path, price: str, message: str) -> None:
    priced.write_text(PRICED.replace("{input: 2.5, output: 10}", price))
    done = penstock("run", priced, stdin=LINES)
    assert done.code == 78
    assert (":3:" in done.words[0], message in done.words[0]) == (True, True)
