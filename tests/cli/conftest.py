"""Pipeline files for the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import HANGING, SIMPLE
from tests.cli.kept import Place


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


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A directory to work in, with a store of its own."""
    here = tmp_path / "here"
    here.mkdir()
    return Place(here, tmp_path / "store")
