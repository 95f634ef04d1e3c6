"""Flags that would be taken for something else, or silently for nothing, are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import penstock


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("agee", "did you mean 'age'?"),
        ("draf", "did you mean 'draft'?"),
        ("zzzzzz", "known here: age, draft, judge"),
    ],
)
def test_a_raw_field_that_nothing_has_is_refused_with_the_nearest_name(field: str, said: str) -> None:
    prompts = ("-p", "draft=x", "-p", "judge={{ draft }}", "--schema", "age int")
    done = penstock("run", "-m", "sim/default", *prompts, "--raw-field", field, stdin=b"x\n")
    message = f"error: --raw-field {field!r} is neither a field of the output nor the name of a stage; {said}"
    assert (done.code, done.out, done.words) == (2, b"", [message, "help: penstock run --help"])


def test_a_raw_field_of_an_earlier_stage_or_of_an_output_without_known_fields_is_taken(tmp_path: Path) -> None:
    prompts = ("-p", "draft=x", "-p", "judge={{ draft }}")
    done = penstock("run", "-m", "sim/echo", *prompts, "--raw-field", "draft", stdin=b"x\n")
    assert (done.code, done.out) == (0, b"x\n")
    (tmp_path / "penstock_mine.py").write_text("def work(value):\n    return {'any': 1}\n")
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nstages: [{map: m, call: 'penstock_mine:work'}]\n")
    args = ("run", file, "--allow-import", "./penstock_mine", "--raw-field", "any")
    done = penstock(*args, stdin=b"x\n", cwd=tmp_path)
    assert (done.code, done.out) == (0, b"1\n")


def test_an_output_named_twice_is_refused(simple: Path, tmp_path: Path) -> None:
    done = penstock("run", simple, "-o", "a", "--output", "b", stdin=b"x\n", cwd=tmp_path)
    assert done.words[0] == "error: --output is given 2 times; it takes one value"
    assert (done.code, (tmp_path / "a").exists(), (tmp_path / "b").exists()) == (2, False, False)
    by_variable = penstock("run", simple, stdin=b"x\n", cwd=tmp_path, PENSTOCK_OUTPUT="c")
    assert (by_variable.code, by_variable.out, (tmp_path / "c").exists()) == (0, b"", True)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--backend", "asyncio, trio"),
        ("--progress", "auto, rich, plain, none"),
        ("--input-format", "auto, text, nul, jsonl, csv, tsv"),
    ],
)
def test_a_word_that_is_none_of_a_flags_is_refused_with_those_that_are(flag: str, words: str, simple: Path) -> None:
    done = penstock("run", simple, flag, "foo")
    assert done.code == 2
    assert f"{flag}'" in done.words[-1]
    assert done.words[-1].endswith(f": 'foo' is not one of {words}")


def test_a_run_of_no_records_is_warned_of_unless_none_were_asked_for(simple: Path) -> None:
    warning = "warning: no records in stdin"
    assert warning in penstock("run", simple).words
    none = penstock("run", simple, "-n", "0", stdin=b"x\n")
    assert (none.code, warning in none.words) == (0, False)
