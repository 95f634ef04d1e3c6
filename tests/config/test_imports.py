"""What is said of code that a pipeline file names and that cannot be imported as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.fakes import HEAD, messages

FILE = HEAD + "stages: [{map: m, call: 'penstock_beside.inner:work'}]\n"


@pytest.mark.parametrize("kind", ["module", "package"])
def test_code_in_the_current_directory_is_allowed_by_its_place(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "module":
        (tmp_path / "penstock_beside.py").touch()
    else:
        (tmp_path / "penstock_beside").mkdir()
    asks = "'call' of stage 'm' asks to import 'penstock_beside.inner', which is not allowed"
    assert messages(FILE) == [f"3:25 E310 {asks} (allow it with --allow-import ./penstock_beside)"]
    fails = "'call' of stage 'm': importing 'penstock_beside.inner' failed"
    missing = "ModuleNotFoundError: No module named 'penstock_beside'"
    assert messages(FILE, allow_import=["penstock_beside"]) == [
        f"3:25 E311 {fails}: {missing} (it lies in the current directory: --allow-import ./penstock_beside)"
    ]


def test_code_elsewhere_is_allowed_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asks = "'call' of stage 'm' asks to import 'penstock_beside.inner', which is not allowed"
    assert messages(FILE) == [f"3:25 E310 {asks} (allow it with --allow-import penstock_beside)"]
    (problem,) = messages(FILE, allow_import=["penstock_beside"])
    assert problem.endswith("No module named 'penstock_beside'")
