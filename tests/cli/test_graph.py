"""Pictures of pipelines, exactly."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.stage import Stage
from pipeline.observe.graph import draw, mermaid
from stages import agent, batch, loop, map, map_reduce, parallel, partition_by, route, scatter
from tests.cli.command import penstock


def ask(name: str, concurrency: int = 16) -> Stage:
    return agent(name, model="sim/x", concurrency=concurrency)


REVIEW = (
    ask("draft", 8) | parallel("review", critique=ask("critique", 4), facts=ask("find") | ask("check")) | ask("judge")
)


def test_a_chain_is_a_line() -> None:
    chain = ask("draft", 8) | map(str.upper, name="tidy")
    assert draw(chain) == "input ─▶ draft ×8 ─▶ tidy ─▶ output"


def test_branches_stand_below_each_other_and_meet() -> None:
    assert draw(REVIEW).splitlines() == [
        "input ─▶ draft ×8 ─▶ review ─┬─────────▶ critique ×4 ───────────┐",
        "                             └─ facts ─▶ find ×16 ─▶ check ×16 ─┴─▶ judge ×16 ─▶ output",
    ]


def test_what_is_too_wide_goes_on_below() -> None:
    assert draw(REVIEW, 60).splitlines() == [
        "input ─▶ draft ×8",
        "    ─▶ review ─┬─────────▶ critique ×4 ───────────┐",
        "               └─ facts ─▶ find ×16 ─▶ check ×16 ─┴─",
        "    ─▶ judge ×16 ─▶ output",
    ]


def test_composites_stand_in_composites() -> None:
    pair = parallel("pair", a=ask("coder"), b=ask("tester", 1))
    dig = scatter("dig", split="{{ prompt }}", each=ask("w"), gather=ask("sum"), max_children=8)
    chain = route({"code": pair, "prose": ask("prose")}, by="{{ input.kind }}", default=dig, name="kind") | ask("end")
    assert draw(chain).splitlines() == [
        "input ─▶ kind_by ─▶ kind ─┬─ code ────▶ pair ─┬─ a ─▶ coder ×16 ─┐",
        "                          │                   └─ b ─▶ tester ────┴───┐",
        "                          ├───────────▶ prose ×16 ───────────────────┤",
        "                          └─ default ─▶ dig ≤8 ═╡ w ×16 ╞═▶ sum ×16 ─┴─▶ end ×16 ─▶ output",
    ]


def test_rounds_batches_lines_and_parts_stand_in_a_frame() -> None:
    polish = loop(ask("write") | ask("judge"), until="{{ judge == 'good' }}", max_rounds=3, name="polish")
    turns = partition_by("{{ input.user }}", batch(ask("score"), size=5, name="scores"), name="turns")
    notes = map_reduce(ask("note"), split=list, reduce=max, initial="", max_open=8, name="notes")
    chain = polish | turns | notes
    assert draw(chain) == (
        "input ─▶ polish ↻ ═╡ write ×16 ─▶ judge ×16 ─▶ polish.until ╞═▶ turns ═╡ scores ═╡ score ×16 ╞═ ╞═"
        "▶ notes ≤8 ═╡ note ×16 ╞═▶ output"
    )
    frames = [line.strip() for line in mermaid(chain).splitlines() if "subgraph" in line]
    assert frames == [
        'subgraph s_polish_each["polish: each round"]',
        'subgraph s_turns_each["turns: one item of a key at a time"]',
        'subgraph s_scores_each["scores: several items at once"]',
        'subgraph s_notes_each["notes: each part, at most 8 at once"]',
    ]


def test_mermaid_has_safe_ids_and_quoted_labels() -> None:
    dig = scatter("dig", split="{{ prompt }}", each=ask("end"), max_children=8)
    chain = map(str.upper, name='a "b" <c>') | dig | parallel("review", facts=ask("facts"), style=ask("style"))
    assert mermaid(chain).splitlines() == [
        "flowchart LR",
        '    s_input(["input"])',
        '    s_output(["output"])',
        '    s_a__b___c_["a #quot;b#quot; #lt;c#gt;"]',
        '    s_dig{{"dig"}}',
        '    subgraph s_dig_each["dig: each part, at most 8 at once"]',
        '        s_end["end ×16"]',
        "    end",
        "    s_dig --> s_end",
        '    s_review{{"review"}}',
        '    s_review_join((" "))',
        '    s_facts["facts ×16"]',
        '    s_review -->|"facts"| s_facts',
        "    s_facts --> s_review_join",
        '    s_style["style ×16"]',
        '    s_review -->|"style"| s_style',
        "    s_style --> s_review_join",
        "    s_a__b___c_ --> s_dig",
        "    s_end --> s_review",
        "    s_input --> s_a__b___c_",
        "    s_review_join --> s_output",
    ]


def test_the_command_draws_files_and_stdin(simple: Path) -> None:
    drawn = penstock("graph", simple)
    assert (drawn.code, drawn.out.decode()) == (0, "input ─▶ say ×16 ─▶ output\n")
    piped = penstock("graph", "-", "--set", "stages.say.concurrency=2", stdin=simple.read_bytes())
    assert piped.out.decode() == "input ─▶ say ×2 ─▶ output\n"
    chart = penstock("graph", simple, "--format", "mermaid")
    assert chart.out.decode().splitlines()[3] == '    s_say["say ×16"]'
    assert penstock("graph", simple, "--format", "picture").code == 2
