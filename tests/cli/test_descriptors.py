"""The command makes room for its connections as far as the system allows, and says so when that is not enough."""

from __future__ import annotations

import sys

import pytest

from pipeline.cli.descriptors import RESERVE, raise_limit

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")


class Limit:
    """Stands for the limit of open files of this process."""

    def __init__(self, soft: int, hard: int, *, refuses: bool = False) -> None:
        self.now = (soft, hard)
        self.refuses = refuses

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.now

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if self.refuses:
            raise ValueError("not allowed to raise maximum limit")
        self.now = limits


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Limit:
    import resource

    limit = request.param
    monkeypatch.setattr(resource, "getrlimit", limit.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", limit.setrlimit)
    return limit


@pytest.mark.parametrize("given", [Limit(1024, 4096)], indirect=True)
def test_the_soft_limit_is_raised_to_what_the_calls_want(given: Limit) -> None:
    assert raise_limit(2000) is None
    assert given.now == (2000 + RESERVE, 4096)


@pytest.mark.parametrize("given", [Limit(1024, -1)], indirect=True)
def test_where_the_system_sets_no_limit_all_of_it_is_raised(given: Limit) -> None:
    assert raise_limit(100_000) is None
    assert given.now == (100_000 + RESERVE, -1)


@pytest.mark.parametrize("given", [Limit(1024, 1024), Limit(-1, -1)], indirect=True)
@pytest.mark.parametrize("calls", [None, 16])
def test_a_limit_that_is_enough_is_left_alone(given: Limit, calls: int | None) -> None:
    before = given.now
    assert raise_limit(calls) is None
    assert given.now == before


@pytest.mark.parametrize("given", [Limit(256, 1024)], indirect=True)
def test_what_the_system_does_not_allow_is_said(given: Limit) -> None:
    assert raise_limit(2000) == (
        "warning: 2000 calls may want a connection each, and the limit of open files is 1024; "
        "those beyond about 896 wait, unless you raise it with `ulimit -n 2128`"
    )
    assert given.now == (1024, 1024)


@pytest.mark.parametrize("given", [Limit(256, 1024, refuses=True)], indirect=True)
def test_a_limit_that_cannot_be_raised_after_all_is_said_as_it_is(given: Limit) -> None:
    assert "the limit of open files is 256;" in (raise_limit(200) or "")
