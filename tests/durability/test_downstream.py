"""What depends on a stage is known by the names in a path, for chains, branches, routes, scatters and loops alike."""

from __future__ import annotations

import pytest

from pipeline import Pipeline
from pipeline.durability.resume.downstream import Downstream, downstream, names_of
from stages import batch, loop, map, parallel, route, scatter


def same(value: object) -> object:
    return value


def pipe() -> Pipeline:
    review = parallel("review", facts=map(same, name="check") | map(same, name="fix"), style=map(same, name="polish"))
    again = loop(map(same, name="draft") | map(same, name="judge"), until=bool, max_rounds=3, name="again")
    dig = scatter("dig", split=same, each=map(same, name="worker"), gather=map(same, name="sum"))
    kind = route({"code": map(same, name="coder")}, by=str, default=map(same, name="writer"), name="kind")
    return Pipeline(map(same, name="plan") | dig | review | kind | again | map(same, name="last"))


def found(name: str) -> Downstream:
    after = downstream(pipe(), name)
    assert after is not None
    return after


def test_all_names_are_known_inner_ones_too() -> None:
    assert set(names_of(pipe())) >= {
        *("plan", "dig", "worker", "sum", "review", "check", "fix", "polish", "kind", "coder", "writer"),
        *("again", "draft", "judge", "last"),
    }
    assert downstream(pipe(), "judges") is None


def test_of_a_stage_in_the_chain_all_that_follows_depends_on_it() -> None:
    after = found("review")
    assert after.has(("review",), "join")
    assert after.has(("review", "facts", "check"), "call")
    assert after.has(("last",), "call")
    assert not after.has(("plan",), "call")
    assert not after.has(("dig", "0", "worker"), "call")


def test_of_a_stage_in_a_branch_the_other_branches_do_not() -> None:
    after = found("fix")
    assert after.has(("review", "facts", "fix"), "call")
    assert not after.has(("review", "facts", "check"), "call")
    assert not after.has(("review", "style", "polish"), "call")
    assert after.has(("review",), "join")
    assert after.has(("kind_by",), "label")
    assert after.has(("kind", "code", "coder"), "call")


def test_a_branch_that_is_called_like_a_stage_is_not_one() -> None:
    assert not found("last").has(("review", "last", "check"), "call")


def test_of_a_scatters_children_the_split_does_not_and_the_gathering_does() -> None:
    after = found("worker")
    assert after.has(("dig", "3", "worker"), "call")
    assert not after.has(("dig",), "split")
    assert after.has(("dig",), "join")
    assert after.has(("dig.gather", "gather", "sum"), "call")
    assert not found("sum").has(("dig", "3", "worker"), "call")
    assert found("dig").has(("dig",), "split")


def test_of_a_stage_in_a_loop_all_later_rounds_do() -> None:
    after = found("judge")
    assert not after.has(("again", "1", "draft"), "call")
    assert after.has(("again", "1", "judge"), "call")
    assert after.has(("again", "1", "again.until"), "until")
    assert after.has(("again", "2", "draft"), "call")


def test_what_is_written_for_a_whole_batch_is_found_too() -> None:
    again = loop(map(same, name="draft"), until=bool, max_rounds=3, name="again")
    pipeline = Pipeline(map(same, name="plan") | batch(map(same, name="sum") | again, size=3, name="lot"))
    after = downstream(pipeline, "plan"), downstream(pipeline, "sum"), downstream(pipeline, "draft")
    of_plan, of_sum, of_draft = (each for each in after if each is not None)
    assert of_plan.has(("batch", "lot", "body", "sum"), "call")
    assert of_plan.has(("lot",), "batch")
    assert of_sum.has(("batch", "lot", "body", "sum"), "call")
    assert not of_sum.has(("lot",), "batch")
    assert of_sum.has(("lot",), "batched")
    assert not of_draft.has(("batch", "lot", "body", "sum"), "call")
    assert of_draft.has(("batch", "lot", "again", "1", "draft"), "call")
    assert of_draft.has(("batch", "lot", "again", "2", "sum"), "call")
    assert of_draft.has(("batch", "lot", "again"), "join")


def test_what_depends_on_one_of_two_stages() -> None:
    after = found("check") | found("polish")
    assert after.has(("review", "facts", "fix"), "call")
    assert after.has(("review", "style", "polish"), "call")
    assert not after.has(("dig", "0", "worker"), "call")


@pytest.mark.parametrize("name", ["coder", "writer"])
def test_of_a_stage_in_a_case_the_label_does_not(name: str) -> None:
    after = found(name)
    assert not after.has(("kind_by",), "label")
    assert not after.has(("kind",), "label")
    assert after.has(("again", "1", "draft"), "call")
