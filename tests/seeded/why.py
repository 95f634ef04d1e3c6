"""A plugin of pytest: tells what the tests failed by, whatever exception groups it came in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

TOLD = "failed by: "

_seen: list[str] = []


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in `error` that are no groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    if call.excinfo is not None:
        _seen.extend(type(error).__name__ for error in leaves(call.excinfo.value))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _seen:
        terminalreporter.write_line(TOLD + " ".join(dict.fromkeys(_seen)))
