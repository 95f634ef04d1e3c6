"""Functions as stages: where they run and what they are given."""

from __future__ import annotations

import threading

from pipeline import Pipeline, Visit
from stages import filter, map


def told(value: str, visit: Visit) -> tuple[str, bool, bool]:
    away = threading.current_thread() is not threading.main_thread()
    return value, visit.names()["prompt"] == value, away


def long(value: str, visit: Visit) -> bool:
    return len(value) > len("x") and visit.names()["prompt"] == value


async def test_a_blocking_function_of_two_parameters_is_given_the_visit() -> None:
    (record,) = await Pipeline(map(told, blocking=True)).collect(["x"])
    assert (record.status, record.output) == ("ok", ("x", True, True))
    (passed,) = await Pipeline(filter(long, blocking=True)).collect(["x", "yy"])
    assert passed.output == "yy"
