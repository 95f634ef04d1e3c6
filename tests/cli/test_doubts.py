"""What could wait for ever is refused before a run; what is legal and surely not meant is told on stderr."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import penstock

HEAD = "version: 1\nmodels: {fake: {use: sim/echo}}\n"
JUDGE = "batch: judge, size: 2, within: none, body: [{map: same, value: '{{ parts }}'}]"
ROUTE = "{route: kind, by: '{{ prompt }}', cases: {a: [{agent: b}]}}"
DOUBTFUL = HEAD + (
    "pipeline: {max_in_flight: 8}\n"
    "stages:\n"
    "  - batch: judge\n"
    "    size: 20\n"
    "    within: 50ms\n"
    "    body: [{map: same, value: '{{ parts }}'}]\n"
)
WARNING = (
    ":6:11  'size' of stage 'judge': 20 is never reached: at most 8 items are alive, so every batch waits for "
    "`within`; lower it to 8, or raise max_in_flight"
)

STALLS = {
    "larger than the window": (
        f"pipeline: {{max_in_flight: 1}}\nstages: [{{{JUDGE}}}]\n",
        "size 2 is more than max_in_flight 1 lets in",
    ),
    "ordered, behind a route": (
        f"pipeline: {{ordered: true}}\nstages: [{ROUTE}, {{{JUDGE}}}]\n",
        "'kind' before it may keep or drop the items that it waits for",
    ),
    "inside a loop": (
        f"stages: [{{loop: l, body: [{{{JUDGE}}}], until: '{{{{ true }}}}', max_rounds: 2}}]\n",
        "the body of another stage may hold the items that it waits for",
    ),
    "keyed with many keys": (
        f"stages: [{{{JUDGE}, key: '{{{{ prompt }}}}'}}]\n",
        "with `key` there can be more batches that are not full than the window has items",
    ),
}


@pytest.mark.parametrize("case", STALLS)
def test_what_could_wait_for_ever_is_invalid_and_told_with_its_place_and_what_to_change(
    case: str, tmp_path: Path
) -> None:
    text, reason = STALLS[case]
    file = tmp_path / "p.yaml"
    file.write_text(HEAD + text)
    line = next(number for number, line in enumerate(file.read_text().splitlines(), 1) if "within" in line)
    checked = penstock("validate", file)
    assert (checked.code, checked.out) == (78, b"")
    assert checked.words[0].startswith(f"{file}:{line}:")
    said = f"E110 'within' of stage 'judge': without a time it could wait for ever: {reason}"
    assert checked.words[0].endswith(said)
    assert "say how long an item may wait at most" in checked.err
    assert penstock("run", file, stdin=b"a\n").code == 78
    file.write_text((HEAD + text).replace("within: none", "within: 50ms"))
    assert penstock("validate", file).code == 0


def test_a_doubt_is_told_on_stderr_and_changes_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(DOUBTFUL)
    checked = penstock("validate", file)
    assert (checked.code, checked.words) == (0, [f"warning: {file}{WARNING}"])
    assert checked.out.decode().startswith(f"{file}: valid; judge: ")
    done = penstock("run", file, stdin=b"a\nb\n")
    assert (done.code, [record["output"] for record in done.records]) == (0, ["a", "b"])
    assert done.words[0] == f"warning: {file}{WARNING}"


def test_quiet_hides_doubts_and_a_flag_can_make_and_end_them(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(DOUBTFUL)
    assert penstock("run", "-q", file, stdin=b"a\n").err == ""
    assert penstock("validate", file, "--set", "pipeline.max_in_flight=20").words == []
    assert penstock("validate", file, "--set", "stages.judge.size=3").words == []
    by_flag = penstock("validate", file, "--set", "stages.judge.size=30")
    assert by_flag.words[0].startswith(
        "warning: --set stages.judge.size=30  'size' of stage 'judge': 30 is never reached"
    )
    from_stdin = penstock("validate", "-", stdin=DOUBTFUL.encode())
    assert from_stdin.words == [f"warning: stdin{WARNING}"]
