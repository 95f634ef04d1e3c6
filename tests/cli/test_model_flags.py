"""Flags that say something of all models of a run: `--rpm`, `--tpm`, `--cache`."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli.definition import Changes, read_text
from stages import resolve
from tests.cli.command import penstock

TWO = """\
version: 1
models:
  a: {use: sim/default, requests_per_minute: 10}
  b: {use: vllm/other, base_url: "http://localhost:1/v1"}
stages:
  - {agent: one, model: a}
  - {agent: two, model: b}
"""


def test_a_rate_of_the_command_line_stands_over_those_of_the_file_for_every_model() -> None:
    options = {"requests_per_minute": 500, "tokens_per_minute": 200_000}
    pipe = read_text(TWO, "two.yaml", Changes(models=options))
    assert list(pipe.resources()) == [
        resolve("sim/default", **options),
        resolve("vllm/other", base_url="http://localhost:1/v1", **options),
    ]
    assert list(read_text(TWO, "two.yaml", Changes()).resources()) == [
        resolve("sim/default", requests_per_minute=10),
        resolve("vllm/other", base_url="http://localhost:1/v1"),
    ]


def test_a_second_run_with_a_cache_asks_nothing(tmp_path: Path) -> None:
    def run(*more: str) -> tuple[list[object], str]:
        done = penstock(
            "run", "-m", "sim/default", "-p", "x {{ prompt }}", *more, stdin=b"a\nb\n", XDG_CACHE_HOME=str(tmp_path)
        )
        assert done.code == 0
        return [each["output"] for each in sorted(done.records, key=lambda each: str(each["id"]))], done.words[-1]

    first, said = run("--cache", "--rpm", "60k", "--tpm", "100k")
    assert "2 requests" in said
    again, said_again = run("--cache")
    assert (again, "requests" in said_again) == (first, False)
    assert "2 requests" in run()[1]


def test_a_rate_of_nothing_is_refused() -> None:
    done = penstock("run", "-m", "sim/default", "--rpm", "0", stdin=b"a\n")
    assert (done.code, done.out) == (2, b"")
    assert "must be at least 1" in done.err
