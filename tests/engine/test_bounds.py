"""What is alive stays within what the pipeline printed, also where losers take their time to leave."""

from __future__ import annotations

import anyio
import pytest

from pipeline.core.errors import InvariantError, is_bug
from pipeline.core.joins import first
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Stage
from pipeline.core.virtual import virtual
from stages import flat_map, parallel, scatter
from tests.engine.usercode import Code

CODE = Code()


async def quick(value: int) -> int:
    return value


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_losers_that_are_slow_to_leave_are_counted_beside_the_members_of_the_next_stage(backend: str) -> None:
    race = parallel("race", join=first(1), a=CODE.stage(quick, "a"), b=CODE.stage(CODE.stubborn, "b"))
    pipe = Pipeline(
        race | parallel("both", x=CODE.stage(CODE.slow, "x"), y=CODE.stage(CODE.slow, "y")), max_in_flight=1
    )
    assert pipe.bounds.items == 1 + 2 + 2
    records = anyio.run(pipe.collect, [1, 2, 3], **virtual(backend))
    assert [record.status for record in records] == ["ok", "ok", "ok"]


def items(*stages: object) -> int:
    chain = stages[0]
    for one in stages[1:]:
        chain = chain | one  # type: ignore[operator]
    return Pipeline(chain, max_in_flight=10).bounds.items  # type: ignore[arg-type]


def test_a_chain_of_leaves_holds_one_item_a_root() -> None:
    assert items(CODE.plain("a"), CODE.plain("b")) == 10


def test_a_parallel_holds_the_item_and_a_member_a_branch() -> None:
    assert items(parallel(a=CODE.plain("a"), b=CODE.plain("b"))) == 30


def test_parallels_in_a_row_that_wait_for_all_are_never_out_together() -> None:
    assert items(parallel("p", a=CODE.plain("a"), b=CODE.plain("b")), parallel("q", c=CODE.plain("c"))) == 30


def test_bodies_multiply() -> None:
    inner = parallel("inner", a=CODE.plain("a"), b=CODE.plain("b"))
    assert items(parallel("outer", x=inner, y=CODE.plain("y"))) == 10 * (1 + 3 + 1)


def test_children_of_a_scatter_count_up_to_max_open() -> None:
    assert items(scatter("s", split=list, each=CODE.plain("e"), max_children=9, max_open=4)) == 50


def test_children_of_a_flat_map_go_on_beside_the_item_that_they_came_from() -> None:
    assert items(flat_map(list, max_children=5), parallel(a=CODE.plain("a"))) == 10 * (1 + 5 * 2)


def test_a_bug_is_seen_through_groups() -> None:
    assert is_bug(ExceptionGroup("", [ValueError(), ExceptionGroup("", [InvariantError("law")])]))
    assert not is_bug(ExceptionGroup("", [ValueError()]))


def test_nesting_costs_no_time_beyond_its_size() -> None:
    nested: Stage = CODE.plain("innermost")
    for depth in range(40):
        nested = parallel(f"p{depth}", a=nested, b=CODE.plain(f"b{depth}"), join=first(1))
    assert items(nested) == 10 * (1 + 2 * 40)
