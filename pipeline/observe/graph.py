"""A pipeline as a picture: for the terminal, and as a Mermaid flowchart.

    input ─▶ draft ×8 ─▶ review ─┬─▶ critique ×4 ─┐
                                 └─▶ facts ×4 ────┴─▶ judge ×8 ─▶ output

Both are pure functions of the frozen definition: `parts()` in a row, `bodies()` below each other. ×8 are slots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pipeline.core.leaf import LeafStage
from pipeline.core.stage import Body, Role, Stage

_ARROW = " ─▶ "

_WORDS: Mapping[Role, str] = {
    "sample": "each sample",
    "part": "each part",
    "round": "each round",
    "batch": "several items at once",
    "line": "one item of a key at a time",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A picture of equally long rows; one enters in the row `top` and leaves in the row `bottom`."""

    rows: tuple[str, ...]
    top: int = 0
    bottom: int = 0

    @property
    def width(self) -> int:
        return len(self.rows[0])


def draw(stage: Stage, width: int | None = None) -> str:
    """The picture for a terminal. A row that is wider than `width` goes on in the next lines."""
    blocks = [Block(("input",)), *(_drawn(part) for part in stage.parts()), Block(("output",))]
    bands: list[Block] = []
    for block in blocks:
        joined = _beside(bands[-1], block) if bands else block
        if bands and width is not None and joined.width > width:
            bands.append(_beside(Block(("    ",)), block, "─▶ "))
        else:
            bands[-1:] = [joined]
    return "\n".join(row.rstrip() for band in bands for row in band.rows)


def title(stage: Stage) -> str:
    """The name of a stage, with its slots if it is more than one."""
    slots = stage.concurrency if isinstance(stage, LeafStage) else 1
    return f"{stage.name} ×{slots}" if slots > 1 else stage.name


def _drawn(stage: Stage) -> Block:
    bodies = stage.bodies()
    if not bodies:
        return Block((title(stage),))
    only = next(iter(bodies.values()))
    if len(bodies) > 1 or only.role == "branch":
        return _beside(Block((stage.name,)), _fork([(label, _body(body)) for label, body in bodies.items()]), " ")
    if only.role == "gather":  # it stands after what it gathers
        return _body(only)
    mark = f" {'×' if only.role == 'sample' else '≤'}{only.copies}" if only.copies > 1 else ""
    again = " ↻" if only.role == "round" else ""
    inner = _beside(Block((f"{stage.name}{mark}{again} ═╡",)), _body(only), " ")
    return _beside(inner, Block(("╞═",)), " ")


def _body(body: Body) -> Block:
    parts = [_drawn(part) for part in body.stage.parts()]
    block = parts[0]
    for part in parts[1:]:
        block = _beside(block, part)
    return block


def _beside(left: Block, right: Block, between: str = _ARROW) -> Block:
    """`right` after `left`, its entrance level with the exit of `left`."""
    if left.rows[left.bottom].endswith(("╞═", "┴─", "──")) and between == _ARROW:
        between = "▶ "
    above = max(left.bottom, right.top)
    below = max(len(left.rows) - left.bottom, len(right.rows) - right.top)
    rows: list[str] = []
    for row in range(-above, below):
        at, to = left.bottom + row, right.top + row
        one = left.rows[at] if 0 <= at < len(left.rows) else " " * left.width
        two = right.rows[to] if 0 <= to < len(right.rows) else " " * right.width
        rows.append(one + (between if row == 0 else " " * len(between)) + two)
    shift = above - left.bottom
    return Block(tuple(rows), left.top + shift, above - right.top + right.bottom)


def _fork(branches: Sequence[tuple[str, Block]]) -> Block:
    """Branches below each other: in at the first one, out at the last one."""
    labels = [f"─ {label} ─▶ " if label not in block.rows[block.top].split() else "─▶ " for label, block in branches]
    longest = max(map(len, labels))
    widest = max(block.width for _, block in branches)
    entrances: list[int] = []
    exits: list[int] = []
    start = 0
    for _, block in branches:
        entrances.append(start + block.top)
        exits.append(start + block.bottom)
        start += len(block.rows)
    rows: list[str] = []
    for label, (_, block) in zip(labels, branches, strict=True):
        for number, text in enumerate(block.rows):
            row = len(rows)
            head = label[:-2].ljust(longest - 2, "─") + label[-2:] if number == block.top else " " * longest
            left = "─" * (row == entrances[0]) or " "
            room = widest - block.width + 1
            gap = "─" if text.endswith("─") else " "
            body = text + (gap + "─" * room if number == block.bottom else " " * (room + 1))
            rows.append(left + _rail(row, entrances, "┬├└─") + head + body + _rail(row, exits, "┐┤┴─"))
    last = exits[-1]
    return Block(tuple(row + ("─" if number == last else " ") for number, row in enumerate(rows)), entrances[0], last)


def _rail(row: int, stops: Sequence[int], shapes: str) -> str:
    """The vertical line that joins `stops`, as it looks in `row`: first, middle, last, only."""
    if len(stops) == 1:
        return shapes[3] if row == stops[0] else " "
    if row not in stops:
        return "│" if stops[0] < row < stops[-1] else " "
    return shapes[0] if row == stops[0] else shapes[2] if row == stops[-1] else shapes[1]


# -- Mermaid ------------------------------------------------------------------------------------------------------


def mermaid(stage: Stage) -> str:
    """The pipeline as a Mermaid flowchart, from left to right."""
    chart = _Chart()
    first, last = chart.node("input", "([", "])"), chart.node("output", "([", "])")
    begin, end = chart.chain(stage)
    chart.edge(first, begin)
    chart.edge(end, last)
    return "\n".join(["flowchart LR", *chart.lines])


class _Chart:
    """Lines of a flowchart. What changes: the lines, the ids that are taken, and how deep we are in subgraphs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._taken: set[str] = set()
        self._depth = 1

    def node(self, text: str, opening: str = "[", closing: str = "]", id: str | None = None) -> str:
        """Add a node and return its id."""
        id = self._free(id or text)
        self._line(f"{id}{opening}{_quoted(text)}{closing}")
        return id

    def edge(self, start: str, end: str, label: str | None = None) -> None:
        """Add an arrow."""
        self._line(f"{start} -->|{_quoted(label)}| {end}" if label else f"{start} --> {end}")

    def chain(self, stage: Stage) -> tuple[str, str]:
        """Add the parts of `stage`; return where one enters and leaves."""
        ends = [self._part(part) for part in stage.parts()]
        for (_, end), (start, _) in pairwise(ends):
            self.edge(end, start)
        return ends[0][0], ends[-1][1]

    def _part(self, stage: Stage) -> tuple[str, str]:
        bodies = stage.bodies()
        if not bodies:
            id = self.node(title(stage), id=stage.name)
            return id, id
        only = next(iter(bodies.values()))
        if len(bodies) == 1 and only.role == "gather":
            return self.chain(only.stage)
        start = self.node(stage.name, "{{", "}}")
        if len(bodies) == 1 and only.role != "branch":
            begin, end = self._subgraph(stage.name, only)
            self.edge(start, begin)
            return start, end
        join = self.node(" ", "((", "))", id=f"{stage.name}_join")
        for label, body in bodies.items():
            begin, end = self.chain(body.stage)
            self.edge(start, begin, label)
            self.edge(end, join)
        return start, join

    def _subgraph(self, name: str, body: Body) -> tuple[str, str]:
        what = _WORDS[body.role]
        most = f", at most {body.copies} at once" if body.copies > 1 else ""
        self._line(f"subgraph {self._free(f'{name}_each')}[{_quoted(f'{name}: {what}{most}')}]")
        self._depth += 1
        ends = self.chain(body.stage)
        self._depth -= 1
        self._line("end")
        return ends

    def _line(self, text: str) -> None:
        self.lines.append("    " * self._depth + text)

    def _free(self, name: str) -> str:
        """An id that nothing else has. The prefix keeps it from being a word of Mermaid, such as `end`."""
        plain = "s_" + re.sub(r"[^A-Za-z0-9_]", "_", name)
        id, number = plain, 2
        while id in self._taken:
            id, number = f"{plain}_{number}", number + 1
        self._taken.add(id)
        return id


def _quoted(text: str) -> str:
    escaped = text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return f'"{" ".join(escaped.split()) or " "}"'
