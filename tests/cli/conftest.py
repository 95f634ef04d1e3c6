"""Pipeline files for the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import HANGING, SIMPLE


@pytest.fixture
def simple(tmp_path: Path) -> Path:
    path = tmp_path / "simple.yaml"
    path.write_text(SIMPLE)
    return path


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    path = tmp_path / "hanging.yaml"
    path.write_text(HANGING)
    return path
