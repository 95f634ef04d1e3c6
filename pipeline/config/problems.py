"""Mistakes in a pipeline file, all of them at once, each with its place and the nearest right word.

Codes: E1xx the shape of the file, E2xx templates, E3xx models and imports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.config.nodes import Mark
from pipeline.core.errors import PipelineError

#: What `penstock validate --explain CODE` says.
EXPLANATIONS = {
    "E100": "The text is not a document of its format: what the parser met, and where.",
    "E101": "A value has the wrong form: what was expected there, and what was found.",
    "E102": "A key is not known at this place. Keys are never ignored, because a misspelt one would be.",
    "E103": "A stage is a mapping whose first key is its kind and whose value is its name: `- agent: draft`.",
    "E104": "A key that is needed is missing.",
    "E105": "A name is used twice, or cannot be used: names of stages are unique in a pipeline.",
    "E106": "YAML that is refused because it surprises: duplicate keys, tags, anchors and aliases, several documents.",
    "E107": "The file is larger, deeper or has more values than a pipeline can need.",
    "E108": "A flag `--set a.b=c` names a place that the file does not have.",
    "E109": "A `${VARIABLE}` of the environment is missing or written wrongly.",
    "E110": "Each option is right by itself, but the stage or the pipeline cannot be built from them.",
    "E201": "The text is not a template: what Jinja met, and where.",
    "E202": "Here stands exactly one expression, `{{ … }}`, whose value is used itself.",
    "E210": "A template uses a name that no stage before it produces.",
    "E301": "The model is not known: neither one of `models:` nor provider/model.",
    "E302": "The model cannot be set up with these options.",
    "E303": "A key stands in the file. Files are shared; name the environment variable that holds it instead.",
    "E310": "The file asks to import code, which only happens for modules allowed by `--allow-import`.",
    "E311": "Importing the code failed.",
}

_SECRETS = re.compile(
    r"""(?P<before>api_key["']?\s*[:=]\s*|[Bb]earer\s+)(?P<value>"[^"]*"|'[^']*'|[^\s,}"']+)|(?P<bare>\bsk-[\w-]{6,})"""
)


@dataclass(frozen=True, slots=True)
class Located:
    """One mistake: its code, what is wrong, where, and what would be right."""

    code: str
    message: str
    mark: Mark = field(default_factory=Mark)
    hint: str | None = None


_YAML_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")


class ConfigError(PipelineError):
    """A pipeline file cannot be used. Its text shows every problem with its line, as a compiler does."""

    def __init__(self, name: str, text: str, problems: Sequence[Located]) -> None:
        ordered = sorted(problems, key=lambda problem: (problem.mark.line, problem.mark.column))
        self.name = name  #: the file, as it was called
        self.problems: tuple[Located, ...] = tuple(dict.fromkeys(ordered))
        self._lines = text.split("\n") if name.endswith(".json") else _YAML_BREAK.split(text)
        super().__init__(self.render())

    def render(self) -> str:
        """The problems in the order of the file, the first hundred of them, then their number."""
        total = len(self.problems)
        blocks = [redact(_block(self.name, problem, self._lines)) for problem in self.problems[:100]]
        return "\n".join([*blocks, f"{total} error{'' if total == 1 else 's'}"])


def redact(text: str) -> str:
    """`text` with whatever looks like a key starred out, its length kept so that carets stay in place."""

    def starred(found: re.Match[str]) -> str:
        return (found["before"] or "") + "*" * len(found["value"] or found["bare"])

    return _SECRETS.sub(starred, text)


def one_line(name: str, problem: Located) -> str:
    """A warning: what is legal and surely not meant, with its place."""
    mark = problem.mark
    where = mark.origin or (f"{name}:{mark.line}:{mark.column}" if mark.line else name)
    hint = f"; {problem.hint}" if problem.hint else ""
    return redact(_visible(f"warning: {where}  {problem.message}{hint}"))


def _block(name: str, problem: Located, lines: Sequence[str]) -> str:
    mark = problem.mark
    if mark.origin is not None or not 0 < mark.line <= len(lines):
        where = mark.origin if mark.origin is not None else name
        return _visible(f"{where}  {problem.code} {problem.message}") + (
            f"; {_visible(problem.hint)}" if problem.hint else ""
        )
    head = _visible(f"{name}:{mark.line}:{mark.column}  {problem.code} {problem.message}")
    line = lines[mark.line - 1]
    start = min(mark.column - 1, len(line))
    if mark.end_line > mark.line:  # a whole line, or the first of several
        start += len(line[start:]) - len(line[start:].lstrip())
    end = mark.end_column - 1 if mark.end_line == mark.line else len(line.rstrip())
    width = max(1, min(end, len(line)) - start)
    if start + width > 160:  # a long line is shown around the place
        cut = max(0, start - 40)
        line, start = line[cut : cut + 160], start - cut
        width = min(width, 120)
    gutter = " " * len(str(mark.line))
    hint = f" {_visible(problem.hint)}" if problem.hint else ""
    words = line.lstrip(" \t")
    shown = _visible(line[: len(line) - len(words)].replace("\t", "→") + words[:160].rstrip("\r"))
    return f"{head}\n{gutter} |\n{mark.line} | {shown}\n{gutter} | {' ' * start}{'^' * width}{hint}"


def _visible(text: str) -> str:
    """Nothing that a terminal would obey, and one column a character, so that carets stay in place."""
    return "".join(char if char.isprintable() else " " if char == "\t" else "\ufffd" for char in text)
