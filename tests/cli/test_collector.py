"""The command lets garbage be collected seldom, while it runs and no longer."""

from __future__ import annotations

import gc

import pytest

from pipeline.cli.collector import THRESHOLD, seldom_collected


def test_the_collector_is_as_it_was_after_a_run() -> None:
    before = gc.get_threshold()
    with seldom_collected():
        assert gc.get_threshold()[:2] == THRESHOLD[:2]
    assert gc.get_threshold() == before


def test_the_collector_is_as_it_was_after_a_run_that_failed() -> None:
    before = gc.get_threshold()
    with pytest.raises(KeyboardInterrupt), seldom_collected():
        raise KeyboardInterrupt
    assert gc.get_threshold() == before
