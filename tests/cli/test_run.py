"""What a run reads, writes and says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.command import Running, penstock


def test_records_go_to_stdout_and_words_to_stderr(simple: Path) -> None:
    done = penstock("run", simple, stdin=b"one\ntwo\n")
    assert done.code == 0
    assert sorted(record["output"] for record in done.records) == ["one!", "two!"]
    assert list(done.records[0]) == ["id", "index", "status", "output", "outputs", "error", "usage", "cost", "input"]
    first, last = done.words
    assert first == f"{simple}: say: at most 256 roots, at most 256 items alive, at most 16 calls"
    counts = re.sub(r"\d+\.\d s", "0.0 s", last)
    assert counts == "done: 2 ok · 0.0 s · 2 requests, 2 tokens in, 2 out · $0.00 (simulated)"


def test_quiet_says_nothing(simple: Path) -> None:
    done = penstock("run", "-q", simple, "-", stdin=b"one\n")
    assert (done.code, done.err, len(done.records)) == (0, "", 1)


def test_ordered_runs_are_equal_byte_for_byte_on_both_backends(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        'version: 1\nmodels: {fake: {use: sim/default, latency: "uniform:0ms..20ms", seed: 3}}\n'
        "stages: [{agent: say}]\n"
    )
    prompts = "".join(f"prompt {number}\n" for number in range(60)).encode()
    runs = [
        penstock("run", "-k", "-j", "8", "--backend", backend, file, stdin=prompts) for backend in ("asyncio", "trio")
    ]
    assert [run.code for run in runs] == [0, 0]
    assert runs[0].out == runs[1].out
    assert [record["index"] for record in runs[0].records] == list(range(60))
    assert "at most 8 calls" in runs[0].words[0]


def test_records_come_one_by_one_while_input_is_still_open(simple: Path) -> None:
    with Running("run", simple) as running:
        running.feed("one\n")
        assert running.record()["output"] == "one!"
        running.feed("two\n")
        assert running.record()["output"] == "two!"
        running.end_input()
        assert (running.rest(), running.wait()) == (b"", 0)


def test_no_input_gives_no_byte_and_a_warning(simple: Path, tmp_path: Path) -> None:
    done = penstock("run", simple)
    assert (done.code, done.out) == (0, b"")
    assert "warning: no records in stdin" in done.words
    out = tmp_path / "out.jsonl"
    assert penstock("run", simple, "/dev/null", "-o", out).code == 0
    assert out.read_bytes() == b""


def test_inputs_are_told_apart_by_their_names(simple: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text\n")
    (tmp_path / "b.jsonl").write_text('{"question": "json?", "key": "k1"}\n')
    (tmp_path / "c.csv").write_text("id,prompt\nk2,csv\n")
    done = penstock("run", "-k", simple, "a.txt", "b.jsonl", "c.csv", "-n", "3", cwd=tmp_path)
    assert [record["output"] for record in done.records] == ["text!", "json?!", "csv!"]
    assert done.records[2]["id"] == "k2"
    assert "b.jsonl: the prompt is the field 'question'" in done.words
    named = penstock("run", simple, "b.jsonl", "--field", "key", "--id-field", "question", cwd=tmp_path)
    assert [(record["id"], record["output"]) for record in named.records] == [("json?", "k1!")]


def test_a_line_that_cannot_be_read_fails_alone(simple: Path) -> None:
    lines = b'{"prompt": "one"}\n{"prompt": \n\xff\xfe{"prompt": "x"}\n{"prompt": "four"}\n'
    done = penstock("run", "-k", simple, "--input-format", "jsonl", stdin=lines)
    assert done.code == 1
    assert [record["status"] for record in done.records] == ["ok", "failed", "failed", "ok"]
    assert [record["output"] for record in done.records] == ["one!", None, None, "four!"]
    assert done.words[-1].startswith("done: 2 ok, 2 failed · ")
    text = penstock("run", "-k", simple, stdin=b"one\n\xff\n")
    assert (text.code, [record["status"] for record in text.records]) == (1, ["ok", "failed"])


def test_raw_is_only_the_text(simple: Path) -> None:
    assert penstock("run", simple, "-r", stdin=b"one\n").out == b"one!\n"
    schema = ("-m", "sim/default", "--schema", "age int", "--raw-field", "age")
    assert re.fullmatch(rb"-?\d+\n", penstock("run", *schema, stdin=b"one\n").out)


def test_an_output_that_exists_is_left_alone_unless_told(simple: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    refused = penstock("run", simple, "-o", out, stdin=b"one\n")
    assert (refused.code, refused.out) == (4, b"")
    text = f"error: {out}: exists; add to it (--append), replace it (--overwrite), or name another file"
    assert refused.words == [text]
    assert out.read_text() == "precious\n"
    assert penstock("run", simple, "-o", out, "--append", stdin=b"one\n").code == 0
    kept, added = out.read_text().splitlines()
    assert (kept, '"output":"one!"' in added) == ("precious", True)
    assert penstock("run", simple, "-o", out, "--overwrite", stdin=b"two\n").code == 0
    (only,) = out.read_text().splitlines()
    assert '"output":"two!"' in only


def test_what_cannot_start_leaves_the_output_alone(tmp_path: Path, simple: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("precious\n")
    for case in (("-m", "openai/gpt-5.5"), (str(simple), "missing.txt")):
        done = penstock("run", *case, "-o", out, "--overwrite", stdin=b"one\n", cwd=tmp_path)
        assert (done.code, out.read_text()) == (4, "precious\n")
        assert done.err.startswith("error: ")


def test_set_changes_what_the_simulator_says_and_how_long_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nmodels: {fake: {use: sim/default, seed: 1}}\nstages: [{agent: say}]\n")
    one, again, other = (
        penstock("run", file, *flags, stdin=b"one\n")
        for flags in ((), ("--set", "models.fake.seed=1"), ("--set", "models.fake.seed=2"))
    )
    assert one.out == again.out
    assert one.records[0]["output"] != other.records[0]["output"]
    slow = penstock("run", file, "--set", "models.fake.latency=1.5s", stdin=b"one\n")
    assert slow.out == one.out
    assert _seconds(slow.words[-1]) >= 1.5 > _seconds(one.words[-1])


def test_set_exchanges_a_whole_model(simple: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("version: 1\nmodels: {fake: {use: sim/default, latency: 1h}}\nstages: [{agent: say}]\n")
    assert penstock("run", "-r", file, "--set", "models.fake=sim/echo", stdin=b"x\n").out == b"x\n"
    assert penstock("validate", file, "--set", "models.fake=openai/gpt-5.5").code == 0
    file.write_text("version: 1\nstages: [{agent: say, model: sim/default}]\n")
    added = ("--set", "models.new=sim/echo", "--set", "stages.say.model=new")
    assert penstock("run", "-r", file, *added, stdin=b"x\n").out == b"x\n"


def test_vars_and_the_environment_reach_the_pipeline(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "version: 1\nvars: {tone: dry}\nmodels: {fake: {use: sim/echo}}\n"
        'stages: [{agent: say, prompt: "{{ vars.tone }}"}]\n'
    )
    assert penstock("run", "-r", file, stdin=b"x\n").out == b"dry\n"
    assert penstock("run", "-r", file, "--var", "tone=a=b", stdin=b"x\n").out == b"a=b\n"
    by_environment = penstock(
        "run", file, stdin=b"x\ny\n", PENSTOCK_RAW="1", PENSTOCK_VAR="tone=warm", PENSTOCK_LIMIT="1"
    )
    assert by_environment.out == b"warm\n"


def test_what_is_printed_as_a_file_gives_the_same_records(tmp_path: Path) -> None:
    flags = ("-m", "sim/default", "-p", "draft=On {{ prompt }}", "-p", "judge=Score: {{ draft }}", "-s", "Be brief.")
    printed = penstock("run", *flags, "--schema", "score int", "--print-config")
    assert (printed.code, printed.err) == (0, "")
    file = tmp_path / "printed.yaml"
    file.write_bytes(printed.out)
    direct = penstock("run", "-k", *flags, "--schema", "score int", stdin=b"a\nb\n")
    assert direct.code == 0
    assert penstock("run", "-k", file, stdin=b"a\nb\n").out == direct.out


def test_code_is_called_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def shout(text):\n    return text.upper()\n")
    file = tmp_path / "p.yaml"
    file.write_text('version: 1\nstages: [{map: loud, call: "tools:shout"}]\n')
    refused = penstock("run", file, stdin=b"x\n", cwd=tmp_path)
    assert refused.code == 78
    assert "allow it with --allow-import ./tools" in refused.err
    # The current directory is not searched: a package there is named by its place.
    assert "No module named 'tools'" in penstock("run", file, "--allow-import", "tools", stdin=b"x\n", cwd=tmp_path).err
    assert penstock("run", "-r", file, "--allow-import", "./tools", stdin=b"x\n", cwd=tmp_path).out == b"X\n"


def test_failures_are_told_by_reason_and_one_by_one_if_asked(hanging: Path) -> None:
    done = penstock("run", "-v", hanging, stdin=b"good\nfail 1\nfail 2\n")
    assert done.code == 1
    assert sum("the simulated model refuses" in line or "(say): " in line for line in done.words) == 3
    assert re.match(
        r"failed: 2 \S+ \(say\) → \S+/errors\.jsonl; once more: penstock resume \w+ --only failed$", done.words[-3]
    )
    assert done.words[-1].startswith("done: 1 ok, 2 failed · ")


@pytest.mark.parametrize("flags", [("--item-timeout", "200ms"), ("--set", "pipeline.item_timeout=200ms")])
def test_a_record_that_takes_too_long_fails(hanging: Path, flags: tuple[str, str]) -> None:
    done = penstock("run", hanging, *flags, stdin=b"hang\nok\n")
    assert done.code == 1
    assert {str(record["input"]): record["status"] for record in done.records} == {
        "{'prompt': 'hang'}": "failed",
        "{'prompt': 'ok'}": "ok",
    }


def _seconds(line: str) -> float:
    found = re.search(r"· (\d+\.\d) s", line)
    assert found is not None
    return float(found[1])
