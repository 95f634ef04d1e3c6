"""What the README says is run: its example, its commands' files, its tables."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def example() -> str:
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_embedding_example_has_at_most_twelve_lines() -> None:
    assert len([line for line in example().splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_embedding_example_prints_a_record_for_each_prompt(backend: str, tmp_path: Path) -> None:
    code = example().replace("anyio.run(main)", f"anyio.run(main, backend={backend!r})")
    assert backend in code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, timeout=60
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok [simulated sim/default") for line in lines)
    assert "first prompt" in done.stdout
    assert "second prompt" in done.stdout


def test_every_file_that_the_readme_links_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)]+)\)", README)
    assert linked
    assert [path for path in linked if not (ROOT / path).exists()] == []


def test_every_config_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"configs/[\w.]+", README))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_two_commands_are_each_one_line() -> None:
    for mark in ("run", "test"):
        found = re.search(rf"<!-- {mark} command -->\n```sh\n(.*?)```", README, re.DOTALL)
        assert found is not None
        assert len(found[1].splitlines()) == 1


def test_the_custom_agent_runs_as_it_stands(tmp_path: Path) -> None:
    found = re.search(r"```python\n(from pipeline import ConversationState, Message.*?)```", README, re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", found[1]], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr == ""
    assert "Improve: " in done.stdout
    assert "why is the sky blue?" in done.stdout


def test_the_agent_with_tools_streams_as_it_stands(tmp_path: Path) -> None:
    found = re.search(r"```python\n([^`]*def population.*?)```", README, re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", found[1]], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert done.stderr == ""
    assert "2750000" in done.stdout
    assert done.stdout.splitlines()[-1] == "ok, 2 requests"


def test_the_models_of_the_section_on_calls_are_read() -> None:
    from pipeline import Pipeline
    from pipeline.config.description import load_text

    found = re.search(r"```yaml\n(models:\n  smart:.*?)```", README, re.DOTALL)
    assert found is not None
    described = load_text("version: 1\n" + found[1] + "stages: [{agent: a, model: smart, max_output_tokens: 100}]\n")
    assert set(described.models) == {"smart", "backup"}
    assert str(Pipeline(described.stages, **described.options).budget) != "None"
