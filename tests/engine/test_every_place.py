"""Wherever a user's code raises, one item fails and the run goes on; what is no `Exception` ends it in good order."""

from __future__ import annotations

import gc
from itertools import count

import anyio

from tests.engine.schedules import run_in
from tests.engine.test_every_step import both_backends, every_topology, outcomes, undisturbed
from tests.engine.topologies import TOPOLOGIES, Host, nothing_is_left
from tests.engine.usercode import Blown, Fuse

#: code of the host's, whose errors are the host's to hear
HOST = ("source", "reader", "sink")


class Interrupt(BaseException):
    """Something that a user's code lets through and nobody may swallow."""


@every_topology
@both_backends
def test_user_code_can_raise_at_every_place_and_harms_no_other_item(backend: str, topology: str) -> None:
    expected = undisturbed(backend, topology)
    for at in count():
        host = Host(TOPOLOGIES[topology], Fuse(at))
        place, raised = played(host, backend)
        if place is None:
            break
        settled = host.machine.statistics().window.settled
        told = f"raised at passage {at}, in {place}"
        assert isinstance(raised, Blown) if place in HOST else raised is None, told
        if place not in ("reader", "sink"):
            assert settled["cancelled"] == 0, told
        if place not in HOST:
            assert sum(settled.values()) == len(host.topology.values) + len(host.topology.asks), told
            found = outcomes(host)
            harmed = [root for root in {*expected, *found} if found.get(root) != expected.get(root)]
            assert len(harmed) <= host.topology.harmed, told
    gc.collect()


@every_topology
@both_backends
def test_what_is_no_exception_comes_out_from_every_place_and_leaves_nothing_behind(backend: str, topology: str) -> None:
    for at in count():
        place, raised = played(Host(TOPOLOGIES[topology], Fuse(at, Interrupt)), backend)
        if place is None:
            break
        assert isinstance(raised, Interrupt), f"raised at passage {at}, in {place}"
    gc.collect()


def played(host: Host, backend: str) -> tuple[str | None, BaseException | None]:
    """Where the fuse has blown in one run, and what came out of it. Nothing may be left."""

    async def main() -> BaseException | None:
        tasks, raised = len(anyio.get_running_tasks()), None
        try:
            await host()
        except BaseException as error:
            raised = error
        assert len(anyio.get_running_tasks()) == tasks
        assert host.run is not None
        nothing_is_left(host.run)
        host.nothing_is_lost()
        return raised

    try:
        raised = run_in(backend, 0, main)
    except BaseException as error:
        error.add_note(f"raised at passage {host.code.fuse.at}, in {host.code.fuse.place}, on {backend}")
        raise
    return host.code.fuse.place, raised
