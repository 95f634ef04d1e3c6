"""Every async test runs on both backends; hypothesis draws the same examples on every machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    # too_slow is a stopwatch: on a busy machine it fails tests that have nothing wrong with them
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.register_profile(
    "deep",
    max_examples=20_000,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session", autouse=True)
def _runs_of_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test keeps runs in the home of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_of_tests() -> None:
    """A shell lets what runs in the background ignore interrupts, `nohup` hang-ups, and a program that is started
    inherits that. It does not inherit a handler."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # not every system has them all
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignored)


def _ignored(*_: object) -> None:
    pass


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)
