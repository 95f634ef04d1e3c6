"""What is said about the command itself, and how long that takes."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from tests.cli.command import penstock


def test_help_names_every_command_and_comes_at_once() -> None:
    assert penstock("--help").code == 0  # compiled from here on
    began = time.perf_counter()
    done = penstock("--help")
    took = time.perf_counter() - began
    assert all(f"  {command} " in done.out.decode() for command in ("run", "validate", "graph"))
    assert took < 1.5  # 0.15 s on an idle machine
    assert penstock("--version").out.decode() == f"penstock {version('penstock')}\n"


def test_help_loads_nothing_that_a_run_needs() -> None:
    code = (
        "import sys, pipeline.cli.app\n"
        "heavy = {'openai', 'rich', 'jinja2', 'yaml', 'stages', 'jsonschema', 'genai_prices'}\n"
        "sys.exit(repr(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, b"")


def test_every_flag_says_its_variable() -> None:
    said = " ".join(penstock("run", "--help").out.decode().split())
    for flag in ("output", "ordered", "concurrency", "set", "var", "item-timeout", "backend", "progress", "quiet"):
        assert f"var: PENSTOCK_{flag.upper().replace('-', '_')}" in said


def test_a_valid_file_is_summed_up_in_one_line(simple: Path) -> None:
    done = penstock("validate", simple)
    line = f"{simple}: valid; say: at most 256 roots, at most 256 items alive, at most 16 calls\n"
    assert (done.code, done.out.decode(), done.err) == (0, line, "")


def test_help_of_run_says_what_each_exit_code_means() -> None:
    said = penstock("run", "--help").out.decode()
    assert all(f" {code}: " in said for code in (0, 1, 2, 3, 4, 70, 74, 78, 130, 141, 143))
    assert "143: SIGTERM or SIGHUP" in said


def test_an_interrupt_while_the_command_is_being_loaded_leaves_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from pipeline.cli.main import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")
