"""A run that is killed, loses power or finds its journal damaged, and goes on: it is right, or it is refused.

Each test starts a process of its own, because only one that has no threads may be forked. What fails says how it is
tried again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.durability.disk.store import Store
from tests.durability.crash.breaking import BROKEN, UNSYNCED

ROOT = Path(__file__).parents[3]
SHARDS = 4
CASES, RECOVERIES, STATES, DAMAGES = 1560, 160, 480, 240


def harness(*options: object) -> dict[str, Any]:
    """What `python -m tests.durability.crash` tells."""
    command = [sys.executable, "-m", "tests.durability.crash", "--json", *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@pytest.mark.parametrize("shard", range(1, SHARDS + 1))
def test_a_run_that_is_killed_anywhere_is_after_its_resume_the_run_that_was_not(shard: int) -> None:
    told = harness("--cases", CASES, "--shard", f"{shard}/{SHARDS}")
    assert told["failures"] == []
    assert told["cases"] >= CASES // SHARDS - 60
    assert told["struck"] >= told["cases"]


def test_a_recovery_that_is_killed_is_recovered_from() -> None:
    told = harness("--recovery", "--cases", RECOVERIES)
    assert told["failures"] == []
    assert told["struck"] >= told["cases"] >= RECOVERIES - 20


@pytest.mark.parametrize("shard", range(1, 3))
def test_after_a_loss_of_power_a_run_goes_on_from_what_the_disk_holds(shard: int) -> None:
    told = harness("--disks", "--cases", STATES, "--shard", f"{shard}/2")
    assert told.pop("failures") == []
    assert sum(total for total, _ in told.values()) >= STATES // 2 - 20
    assert all(right == total for total, right in told.values())  # what was synced is there, so nothing is refused


def test_a_journal_that_was_damaged_or_tampered_with_is_refused_or_right() -> None:
    told = harness("--hostile", "--cases", DAMAGES)
    assert told.pop("failures") == []
    assert told["database, flipped"][0] == DAMAGES * 6 // 10
    assert told["changed"][1] < told["changed"][0]


@pytest.mark.parametrize("wrong", sorted(BROKEN.keys() - {UNSYNCED}))
def test_an_engine_that_is_wrong_is_noticed(wrong: str) -> None:
    told = harness("--broken", wrong, "--workload", "sequence", "--workload", "duplicates", "--cases", 60, "--most", 1)
    assert len(told["failures"]) == 1


def test_an_output_that_is_marked_before_it_is_on_the_disk_is_noticed() -> None:
    told = harness("--broken", UNSYNCED, "--disks", "--case", "sequence/asyncio/inline/", "--each", 40)
    assert told.pop("failures") == []
    ((total, right),) = told.values()
    assert right < total == 40  # the file is shorter than the journal says, so the run is refused


def test_a_journal_that_survives_a_loss_of_power_syncs_each_commit(tmp_path: Path) -> None:
    """What the states of a disk are made from."""
    store = Store.create(tmp_path / "journal.db", "power", lambda point: None)
    assert list(store.read("PRAGMA synchronous")) == [(2,)]
    assert list(store.read("PRAGMA journal_mode")) == [("wal",)]
    store.close(fold=True)
