"""`penstock sim` as a real process: what it says, what it refuses, and how it ends."""

from __future__ import annotations

import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import Running, penstock

PROMPT = "Hi {{ prompt }}"


def base_url_of(running: Running) -> str:
    assert running.process.stdout is not None
    return running.process.stdout.readline().decode().strip()


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def test_it_says_where_it_is_and_a_run_asks_it_as_it_says() -> None:
    with Running("sim", "--port", "0", "--seed", "7", "--model", "fast", "--model", "slow") as running:
        base_url = base_url_of(running)
        assert running.hear("a simulated model is served") == (
            f"a simulated model is served at {base_url}; Ctrl-C ends it"
        )
        set_url = f"models.default.base_url={base_url}"
        line = running.hear("penstock run")
        assert line == f"  echo 'good morning' | penstock run -m vllm/fast --set {set_url} -p 'Hi {{{{ prompt }}}}' -r"
        done = penstock("run", "-m", "vllm/fast", "--set", set_url, "-p", PROMPT, "-r", stdin=b"there\n")
        assert (done.code, done.out.decode().rstrip().endswith("In answer to: Hi there")) == (0, True)
        assert [each["id"] for each in fetched(f"{base_url}/models")["data"]] == ["fast", "slow"]
        assert fetched(base_url.removesuffix("/v1") + "/ledger")["finished"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_0_when_it_is_told_to_and_breaks_off_what_it_has_not_answered(number: int, tmp_path: Path) -> None:
    with Running("sim", "--port", "0", "--quiet", "--latency", "1h") as running:
        base_url = base_url_of(running)
        set_url = f"models.default.base_url={base_url}"
        with Running("run", "-m", "vllm/any", "--set", set_url, "--set", "models.default.attempts=1") as asking:
            asking.feed("one\n")
            ledger = base_url.removesuffix("/v1") + "/ledger"
            while not fetched(ledger)["in_flight"]:
                pass
            running.signal(number)
            assert (running.wait(), running.words) == (0, [])
            asking.end_input()
            record = asking.record()
    assert record["status"] == "failed"


def test_limits_and_faults_are_kept_as_they_were_given() -> None:
    flags = ("--error", "429:insufficient_quota=100%", "--requests-per-minute", "1k", "--window", "sliding")
    with Running("sim", "--port", "0", "--access-log", *flags) as running:
        base_url = base_url_of(running)
        done = penstock(
            "run", "-m", "vllm/any", "--set", f"models.default.base_url={base_url}", "-p", PROMPT, stdin=b"there\n"
        )
        assert done.code != 0
        assert running.hear("POST").startswith("POST /v1/chat/completions 429 ")
        assert fetched(base_url.removesuffix("/v1") + "/ledger")["by_status"] == {"429": 1}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--latency", "fast"), "error: --latency: cannot read 'fast' "),
        (("--error", "429"), "error: --error '429' is not of the form fault=share, as 429=3%"),
        (("--error", "429=3%", "--error", "429=4%"), "error: --error 429 is given twice"),
        (("--error", "tiemout=3%"), "error: --error: 'tiemout' is no fault (a status 300-599, "),
        (("--error", "429=3"), "error: --error 429: '3' is no share (write 3% or 0.03)"),
        (("--requests-per-minute", "0"), "error: --requests-per-minute: is '0' (give a whole number, at least 1, as"),
        (("--window", "fixed", "--burst", "1s"), "error: --burst: the window fixed has none (leave it out, or use"),
        (("--window", "minute"), "'minute' is not one of token_bucket, sliding, fixed, second"),
        (("--port", "65536"), "error: --port 65536 is no port; from 0 to 65535"),
    ],
)
def test_a_wrong_flag_is_named_before_anything_listens(flags: tuple[str, ...], text: str) -> None:
    done = penstock("sim", *flags)
    assert (done.code, done.out) == (2, b"")
    assert text in done.err


def test_a_port_that_is_taken_is_said_with_what_to_do() -> None:
    with Running("sim", "--port", "0") as running:
        port = base_url_of(running).split(":")[2].removesuffix("/v1")
        done = penstock("sim", "--port", port)
        said = f"error: cannot listen on 127.0.0.1:{port}: address already in use; --port 0 takes a free port\n"
        assert (done.code, done.out, done.err) == (4, b"", said)


def test_an_address_that_others_reach_is_warned_of() -> None:
    with Running("sim", "--port", "0", "--host", "0.0.0.0") as running:
        base_url = base_url_of(running)
        assert base_url.startswith("http://127.0.0.1:")
        port = base_url.split(":")[2].removesuffix("/v1")
        assert running.hear("warning") == (
            f"warning: 0.0.0.0 is no address of this machine alone: whoever reaches port {port} is answered"
        )


def test_a_missing_package_names_the_extra(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['uvicorn'] = None\n"
        "from pipeline.core.errors import PipelineError\n"
        "from stages.models.simulated_http import SERVER\n"
        "try: SERVER.check({})\n"
        "except PipelineError as error: print(error)\n"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("penstock sim needs uvicorn: pip install 'penstock[sim]'\n", "")


def test_help_says_how_a_pipeline_asks_it() -> None:
    said = penstock("sim", "--help").out.decode()
    assert 'models: {local: {use: vllm/any, base_url: "http://127.0.0.1:8000/v1"}}' in said
    assert "penstock run -m vllm/any --set models.default.base_url=http://127.0.0.1:8000/v1" in said
    assert "[env var: PENSTOCK_LATENCY]" in " ".join(said.split())


def test_limits_in_a_pipeline_file_are_checked_where_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "limited.yaml"
    limits = "limits: {tokens_per_minute: 200x, window: sliding}"
    path.write_text(f"version: 1\nmodels:\n  fake:\n    use: sim/x\n    {limits}\nstages: [{{agent: say}}]\n")
    done = penstock("validate", path)
    assert done.code == 78
    assert done.words[0] == f"{path}:5:13  E302 'limits.tokens_per_minute' of model 'fake': is '200x'"
