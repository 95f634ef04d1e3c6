"""What blocks the event loop and what holds a run is said while it goes on, once, with what would be right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.alarms import Alarms
from pipeline.cli.job import Flags, document_of, job_of
from pipeline.cli.voice import Voice
from pipeline.core.events import EndpointChanged, LoopBlocked, ModelReplaced, RunStalled
from pipeline.core.pipeline import Pipeline
from pipeline.core.state import ConversationState
from stages import agent, flat_map, loop, map, partition_by, tap
from tests.cli.command import Running, penstock

TOOLS = """\
import time

async def fetch(text):
    time.sleep(0.5)
    return text

def fetch_plain(text):
    time.sleep(0.5)
    return text
"""
FETCH = "make it a plain def with blocking: true, then it runs in worker threads (cpu: true: in processes)"
EXPRESSION = "an expression cannot run anywhere else: let it do less, or a map before it, with blocking: true"
ELSEWHERE = "let it wait with await, or run in a thread"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "tools.py").write_text(TOOLS)
    return tmp_path


def pipeline_file(directory: Path, stage: str, options: str = "") -> Path:
    path = directory / "p.yaml"
    path.write_text(f"version: 1\n{options}\nstages: [{{map: fetch, {stage}}}]\n")
    return path


class Listening(Voice):
    """A voice that keeps what it says."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self.said: list[str] = []

    def error(self, text: str) -> None:
        self.said.append(text)


# -- a blocked loop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_sleep_in_an_async_stage_is_told_once_by_name_and_place(directory: Path, backend: str) -> None:
    path = pipeline_file(directory, 'call: "tools:fetch", concurrency: 3')
    flags = ("--allow-import", "./tools", "--watchdog", "50ms", "--backend", backend)
    done = penstock("run", path, *flags, stdin=b"1\n2\n3\n", cwd=directory)
    assert done.code == 0
    (warning,) = [line for line in done.words if line.startswith("warning:")]
    assert warning.startswith("warning: stage 'fetch' blocks the event loop, on which all else waits: 0.")
    assert warning.endswith(f" s at tools.py:4 in fetch; {FETCH}")


def test_declared_as_blocking_it_keeps_nobody(directory: Path) -> None:
    path = pipeline_file(directory, 'call: "tools:fetch_plain", blocking: true, concurrency: 3')
    done = penstock("run", path, "--allow-import", "./tools", stdin=b"1\n2\n3\n", cwd=directory)
    assert (done.code, len(done.records), [word for word in done.words if "warning" in word]) == (0, 3, [])


@pytest.mark.parametrize(("flags", "options"), [(("--watchdog", "none"), ""), ((), "pipeline: {watchdog: none}")])
def test_the_watchdog_can_be_turned_off(directory: Path, flags: tuple[str, ...], options: str) -> None:
    path = pipeline_file(directory, 'call: "tools:fetch"', options)
    done = penstock("run", path, "--allow-import", "./tools", *flags, stdin=b"1\n", cwd=directory)
    assert (done.code, [word for word in done.words if "warning" in word]) == (0, [])


class Slow:
    name = "slow"

    async def process(self, prompt: str, state: ConversationState) -> str:
        return prompt


@pytest.mark.parametrize(
    ("culprit", "stage", "right"),
    [
        ("stage 'm'", "m", FETCH),
        ("stage 'slow'", "slow", "make its process a plain def, then it runs in worker threads"),
        ("stage 't'", "t", "make it a plain def with blocking: true, then it runs in worker threads"),
        ("stage 'e'", "e", EXPRESSION),
        ("stage 'l.until'", "l.until", EXPRESSION),
        ("stage 'p'", "p", EXPRESSION),
        ("stage 'q'", "q", ELSEWHERE),
        ("stage 'f'", "f", ELSEWHERE),
        ("the source", None, ELSEWHERE),
    ],
)
def test_what_would_be_right_depends_on_who_it_was(culprit: str, stage: str | None, right: str) -> None:
    voice = Listening()
    stages = map(str, name="m") | agent(Slow()) | tap(print, name="t") | map("{{ prompt }}", name="e")
    stages |= loop(map(str, name="in_l"), until="{{ in_l == '' }}", max_rounds=2, name="l")
    stages |= partition_by("{{ prompt }}", map(str, name="in_p"), name="p")
    stages |= partition_by(str, map(str, name="in_q"), name="q") | flat_map(list, name="f")
    alarms = Alarms(Pipeline(stages), voice)
    for seconds in (1.234, 9.0):
        alarms.hear(LoopBlocked(culprit, stage, "/elsewhere/x.py:7 in f", seconds))
    assert voice.said == [
        f"warning: {culprit} blocks the event loop, on which all else waits: 1.23 s at /elsewhere/x.py:7 in f; {right}"
    ]


DOWN = EndpointChanged("127.0.0.1:8000", "vllm/m", "down", "", 0, True)
MEANWHILE = "a probe goes out every few seconds"


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            DOWN._replace(
                why="vllm/m: no connection to 127.0.0.1:8000: connection refused; is it running?", waiting=256
            ),
            f"does not answer (connection refused; is it running?); 256 calls wait, {MEANWHILE}",
        ),
        (
            DOWN._replace(why="vllm/m: 127.0.0.1:8000: ReadError: gone"),
            f"does not answer (ReadError: gone); its calls wait, {MEANWHILE}",
        ),
        (
            DOWN._replace(why=f"vllm/m: HTTP 503, {'x' * 1000}", patient=False),
            f"does not answer (HTTP 503, {'x' * 390}); its calls go to another model, {MEANWHILE}",
        ),
    ],
)
def test_an_endpoint_that_goes_down_is_told_each_time_and_so_is_that_it_is_back(
    event: EndpointChanged, said: str
) -> None:
    voice = Listening()
    alarms = Alarms(Pipeline(map(str)), voice)
    for each in (event, event._replace(state="up", why="")) * 2:
        alarms.hear(each)
    assert voice.said == [f"warning: 127.0.0.1:8000 {said}", "127.0.0.1:8000 answers again"] * 2


def test_a_model_that_another_one_stands_in_for_is_told_once() -> None:
    voice = Listening()
    alarms = Alarms(Pipeline(map(str)), voice)
    why = "openai/a: HTTP 401, the key in OPENAI_API_KEY was refused"
    for text in (why, f"{why} (so it was not asked again)"):
        alarms.hear(ModelReplaced("openai/a", "vllm/b", "key_refused", text))
    alarms.hear(ModelReplaced("vllm/b", "sim/c", "key_refused", "vllm/b: HTTP 403, no"))
    assert voice.said == [
        f"warning: {why}; its calls go to vllm/b",
        "warning: vllm/b: HTTP 403, no; its calls go to sim/c",
    ]


def test_a_server_that_is_not_there_is_said_before_the_run_is_given_up() -> None:
    done = penstock("run", "-m", "vllm/m", "--set", "models.default.base_url=http://127.0.0.1:1/v1", stdin=b"x\n" * 300)
    (warning,) = [line for line in done.words if line.startswith("warning:")]
    assert warning.startswith("warning: 127.0.0.1:1 does not answer (")
    assert warning.endswith(f"; its calls wait, {MEANWHILE}")
    assert (done.code, done.words[-2].endswith(" · the rest of the input was not read")) == (4, True)
    assert done.words[-1].startswith("go on with: … | penstock resume ")


def test_alarms_are_nothing_for_those_who_want_errors_only() -> None:
    voice = Listening(quiet=True)
    alarms = Alarms(Pipeline(map(str)), voice)
    alarms.hear(LoopBlocked("stage 'str'", "str", "x.py:1 in f", 1.0))
    alarms.hear(RunStalled(1.0, ("root '0' waits",)))
    assert voice.said == []


def test_a_stage_that_keeps_the_loop_for_good_is_told_while_it_does(directory: Path) -> None:
    path = pipeline_file(directory, 'call: "tools:never"')
    with (directory / "tools.py").open("a") as tools:
        tools.write("\nasync def never(text):\n    while True:\n        time.sleep(0.01)\n")
    with Running("run", path, "--allow-import", "./tools", cwd=directory) as running:
        running.feed("1\n")
        said = running.hear("warning: stage 'fetch' has kept the event loop for 5 s and still does, at tools.py:1")
        assert said.endswith(" in never; nothing else goes on meanwhile, not even Ctrl-C")


# -- a stall --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [("--stall-timeout", "200ms"), ("--set", "pipeline.stall_timeout=200ms")])
def test_a_run_that_does_not_move_says_what_holds_it(hanging: Path, flags: tuple[str, str]) -> None:
    with Running("run", hanging, *flags) as running:
        running.feed("hang\n")
        running.hear("warning: nothing has moved for 0.2 s")
        running.hear("  root '", "' is visited by stage 'say'")
        running.hear("  it waits for the answer of model sim/echo")


def test_the_status_ends_with_what_holds_the_run(hanging: Path) -> None:
    with Running("run", hanging) as running:
        running.feed("hang\n")
        running.admitted(1)
        running.hear("waits   root '")


# -- what holds without flags ---------------------------------------------------------------------------------------


def given(path: Path, **flags: Any) -> Flags:
    nothing: dict[str, Any] = dict.fromkeys(Flags.__dataclass_fields__)
    nothing |= {"overwrite": False, "append": False, "ordered": False, "raw": False, "prompts": (), "reading": {}}
    nothing |= {"overrides": (), "variables": (), "allow_import": (), "output": "-", "input_format": "auto"}
    return Flags(**nothing | {"words": (str(path), "-"), "backend": "asyncio", "progress": "none"} | flags)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (0.25, 300.0)),
        ({"watchdog": 1.0, "stall_timeout": 60.0}, (1.0, 60.0)),
        ({"watchdog": float("inf"), "stall_timeout": float("inf")}, (None, None)),
        ({"overrides": ("pipeline.watchdog=none", "pipeline.stall_timeout=none")}, (None, None)),
        ({"overrides": ("pipeline.watchdog=2s",), "watchdog": 3.0}, (3.0, 300.0)),
    ],
)
def test_both_are_on_unless_the_file_or_a_flag_says_otherwise(
    simple: Path, flags: dict[str, Any], expected: tuple[float | None, float | None]
) -> None:
    asked = given(simple, **flags)
    pipeline = job_of(asked, document_of(asked, str(simple)), ("-",), Listening()).pipeline
    assert (pipeline.watchdog, pipeline.stall_timeout) == expected


@pytest.mark.parametrize("flag", ["--watchdog", "--stall-timeout"])
def test_nothing_is_no_time(simple: Path, flag: str) -> None:
    done = penstock("run", simple, flag, "0s", stdin=b"x\n")
    assert done.code == 2
    assert "must be above 0 seconds" in done.err
