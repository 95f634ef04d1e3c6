"""Each exit code, with what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.exits import code_of, told
from pipeline.config.problems import ConfigError
from pipeline.core.errors import InvariantError, RunStopped, SinkClosed, SourceError, WriteError
from tests.cli.command import penstock


def test_usage_errors_end_with_2_and_say_what_would_be_right(simple: Path) -> None:
    unknown = penstock("rnu")
    assert (unknown.code, "Did you mean 'run'?" in unknown.err) == (2, True)
    assert penstock("run", simple, "--no-such-flag").code == 2
    count = penstock("run", simple, "-j", "many")
    assert (count.code, "write a whole number like 16, 25.6k or 1M" in count.err) == (2, True)
    exclusive = penstock("run", simple, "--append", "--overwrite", "-o", "x")
    assert exclusive.words == ["error: --overwrite and --append exclude each other", "help: penstock run --help"]
    no_model = penstock("run", "-p", "x")
    assert no_model.words[0].startswith("error: -p, -s and --schema need a model")
    assert no_model.code == exclusive.code == 2
    file_as_input = penstock("run", "-m", "sim/echo", simple)
    assert (file_as_input.code, f"{simple} would be read as input" in file_as_input.err) == (2, True)


def test_too_many_failures_stop_the_run_with_3(hanging: Path) -> None:
    done = penstock("run", hanging, "--max-failures", "1", "-j", "1", stdin=b"ok\n" + b"fail\n" * 50)
    assert done.code == 3
    assert "stopped: 2 items failed, max_failures is 1" in done.words
    assert done.words[-2].startswith("stopped: 1 ok, 2 failed")
    assert done.words[-1].startswith("go on with: … | penstock resume ")


def test_what_cannot_start_and_what_fails_altogether_end_with_4(simple: Path, hanging: Path, tmp_path: Path) -> None:
    missing = penstock("run", simple, "a.txt", "b.txt", cwd=tmp_path)
    assert (missing.code, missing.words) == (4, ["error: a.txt: no such file", "b.txt: no such file"])
    no_file = penstock("run", "none.yaml", cwd=tmp_path)
    assert (no_file.code, no_file.words[0]) == (4, "none.yaml  E100 cannot be read: No such file or directory")
    no_key = penstock("run", "-m", "openai/gpt-5.5", stdin=b"x\n")
    assert no_key.words == ["error: model openai/gpt-5.5: the variable OPENAI_API_KEY is not set; put the key into it"]
    every = penstock("run", hanging, stdin=b"fail 1\nfail 2\n")
    assert (no_key.code, every.code, len(every.records)) == (4, 4, 2)


def test_a_refusal_that_all_would_meet_stops_the_run_with_4(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text('version: 1\nmodels: {fake: {use: sim/x, errors: {"401": 100%}}}\nstages: [{agent: say}]\n')
    done = penstock("run", file, "-j", "2", stdin=b"x\n" * 100)
    assert done.code == 4
    assert "401" in next(line for line in done.words if line.startswith("stopped: "))
    assert len(done.records) <= 4


def test_a_full_disk_ends_with_74(simple: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = penstock("run", simple, "-o", "/dev/full", stdin=b"x\n")
    assert (done.code, done.words[1]) == (74, "error: /dev/full: writing failed: no space left on device")


def test_mistakes_in_the_file_end_with_78_and_the_nearest_right_word(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "version: 1\nmodels: {fake: {use: sim/echo}}\nstages:\n  - agent: say\n    concurency: 8\n"
        "    prompt: '{{ prmpt }}'\n"
    )
    run, valid = penstock("run", file, stdin=b"x\n"), penstock("validate", file)
    assert (run.code, run.out, valid.code, valid.out) == (78, b"", 78, b"")
    assert run.err == valid.err
    assert f"{file}:5:5  E102 unknown key 'concurency'" in run.err
    assert "did you mean 'concurrency'?" in run.err
    file.write_text(file.read_text().replace("concurency", "concurrency"))
    done = penstock("validate", file)
    assert (done.code, done.words[-1]) == (78, "1 error")
    assert done.words[0].startswith(f"{file}:6:13  E210 'prompt' of stage 'say' uses 'prmpt'; available here: ")
    assert "did you mean 'prompt'?" in done.err


def test_a_bug_in_called_code_is_an_items_failure_and_ours_is_70() -> None:
    bug = InvariantError("roots were lost")
    assert code_of(bug) == 70
    assert "Traceback" not in told(SourceError("x"))[0]
    assert told(bug)[0].endswith("It ended the run.")
    assert code_of(RuntimeError("?")) == 70


def test_of_several_errors_each_is_told_once_and_the_worst_decides() -> None:
    group = BaseExceptionGroup(
        "", [WriteError("out: full"), ExceptionGroup("", [RunStopped("enough"), WriteError("out: full")])]
    )
    assert told(group) == ["error: out: full", "stopped: enough"]
    assert code_of(group) == 74
    assert code_of(BaseExceptionGroup("", [SinkClosed("x"), RunStopped("no", cause_kind="refused")])) == 141
    assert code_of(ConfigError("f", "", [])) == 78
    assert [code_of(RunStopped("x", cause_kind=kind)) for kind in ("refused", "failures", "stopped")] == [4, 3, 3]


def test_stdin_is_the_pipeline_or_the_input_but_not_both(simple: Path, tmp_path: Path) -> None:
    said = "error: the pipeline comes from stdin, so the input cannot; name an input file, or the pipeline's"
    for words in (["-"], ["-", "-"]):
        both = penstock("run", *words, stdin=simple.read_bytes())
        assert (both.code, both.out, both.words[0]) == (2, b"", said)
    (tmp_path / "in.txt").write_text("one\n")
    done = penstock("run", "-", tmp_path / "in.txt", stdin=simple.read_bytes())
    assert (done.code, len(done.records)) == (0, 1)


def test_a_variable_that_nobody_gave_is_found_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "version: 1\nmodels: {fake: {use: sim/echo}}\nvars: {language: English}\nstages:\n  - agent: say\n"
        "    prompt: '{{ vars.langage }} {{ vars.tone }} {{ prompt }}'\n"
    )
    wrong = penstock("validate", file)
    assert (wrong.code, wrong.words[-1]) == (78, "2 errors")
    assert wrong.words[0] == f"{file}:6:13  E210 'prompt' of stage 'say' uses 'vars.langage'; 'vars' has: language"
    assert "did you mean 'language'?" in wrong.err
    assert penstock("validate", file, "--var", "langage=x", "--var", "tone=y").code == 0
    file.write_text(file.read_text().replace("langage", "language").replace("vars.tone", "vars.tone | default(3)"))
    assert penstock("validate", file).code == 0
