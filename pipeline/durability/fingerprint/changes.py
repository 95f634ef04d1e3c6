"""What is another one in a pipeline than it was, key by key, with sentences for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from pipeline.core.codec import canonical, encode
from pipeline.core.visible import visible
from pipeline.durability.fingerprint import Fingerprint
from pipeline.durability.fingerprint.effects import Effect
from pipeline.durability.fingerprint.keys import split
from pipeline.durability.fingerprint.values import JSON, LONGEST, is_hidden

WHOLE: Final = 60  #: characters of texts that are shown whole
AROUND: Final = 20  #: characters that are shown before and after the part of longer ones that differs
MOST: Final = 160  #: characters that are shown of that

_KIND: Final = "kind"
_SOURCE: Final = ".source"


@dataclass(frozen=True)
class Change:
    """One option that is not what it was; None stands for one that is not set.

    A stage that is new, is gone, or is of another kind is one change, of its `kind`.
    """

    key: str
    effect: Effect
    old: JSON
    new: JSON

    @property
    def stage(self) -> str | None:
        """The stage whose option it is; None for one of the pipeline."""
        return split(self.key)[0]

    @property
    def option(self) -> str:
        return split(self.key)[1]

    def __str__(self) -> str:
        return sentences([self])[0]

    def as_json(self) -> dict[str, JSON]:
        """What a journal keeps of it."""
        return {"key": self.key, "effect": self.effect, "old": self.old, "new": self.new}


def differences(old: Fingerprint, new: Fingerprint) -> tuple[Change, ...]:
    """What has changed, what decides the results first, in the order of the new pipeline.

    An option that only one of the two knows, and that is there what it is when it is not given, has not changed: a
    later version of the engine has options that an earlier one had not.
    """
    before, after = {**old.result, **old.operational}, {**new.result, **new.operational}
    replaced = _replaced(before, after)
    found: list[Change] = []
    for key in dict.fromkeys((*after, *before)):
        stage, option = split(key)
        alone = (key not in before and key in new.defaults) or (key not in after and key in old.defaults)
        if alone or (stage in replaced and option != _KIND) or _same(before.get(key), after.get(key)):
            continue
        side = new if key in after else old
        found.append(Change(key, "result" if key in side.result else "operational", before.get(key), after.get(key)))
    return tuple(sorted(found, key=lambda change: change.effect == "operational"))


def sentences(changes: Sequence[Change]) -> tuple[str, ...]:
    """What has changed, a line each; what has changed alike in several stages, such as their model, is one line, and
    that another function has other code goes without saying."""
    grouped: dict[tuple[str, bytes], list[Change]] = {}
    keys = {change.key for change in changes}
    for change in changes:
        if change.key.endswith(_SOURCE) and change.key.removesuffix(_SOURCE) in keys:
            continue
        alike = canonical([change.old, change.new])
        grouped.setdefault((change.option if change.stage is not None else change.key, alike), []).append(change)
    return tuple(_sentence(group) for group in grouped.values())


def _replaced(before: Mapping[str, JSON], after: Mapping[str, JSON]) -> frozenset[str | None]:
    """The stages that are not the same stage any more, of which nothing else need be told."""
    keys = [(split(key), key) for key in {**before, **after}]
    return frozenset(
        stage for (stage, option), key in keys if stage and option == _KIND and before.get(key) != after.get(key)
    )


def _same(old: JSON, new: JSON) -> bool:
    return canonical(old) == canonical(new)


def _sentence(group: Sequence[Change]) -> str:
    first = group[0]
    names = [repr(change.stage) for change in group if change.stage is not None]
    *others, last = names or [""]
    joined = f"{', '.join(others)} and {last}" if others else last
    owner = f"stages {joined}" if others else f"stage {joined}" if names else "pipeline"
    if names and first.option == _KIND and (first.old is None or first.new is None):
        return f"{owner} {'are' if others else 'is'} {'new' if first.old is None else 'gone'}"
    return f"{owner}, {_said(first)}"


def _said(change: Change) -> str:
    option, old, new = visible(change.option), change.old, change.new
    if option.endswith(_SOURCE) and old is not None and new is not None:
        return f"{option.removesuffix(_SOURCE)}: its code has changed"
    if is_hidden(old) and is_hidden(new):
        return f"{option}: has another value, which is not shown"
    was, now = _text(old), _text(new)
    if was.said == now.said:
        return f"{option}: has changed after its first {LONGEST:,} characters"
    if not (was.quoted and now.quoted):
        was, now = was._replace(said=was.shown), now._replace(said=now.shown)
        return "{}: {} is now {}".format(option, *_parting(was.said, now.said))
    return "{}: {} is now {}".format(option, *(_quoted(part) for part in _parting(was.said, now.said)))


class _Text(NamedTuple):
    """A value as text."""

    said: str
    quoted: bool = False

    @property
    def shown(self) -> str:
        return _quoted(self.said) if self.quoted else self.said


def _text(value: JSON) -> _Text:
    match value:
        case None:
            return _Text("not set")
        case str():
            return _Text(value, quoted=True)
        case list() if value and all(isinstance(each, str) for each in value):
            return _Text(", ".join(visible(str(each)) for each in value))
        case {"begins": str() as begins, "hash": str()}:
            return _Text(begins, quoted=True)
        case {"hidden": str()}:
            return _Text("a value that is not shown")
        case _:
            return _Text(visible(encode(value).decode()))


def _quoted(text: str) -> str:
    return visible(encode(text).decode())


def _parting(old: str, new: str) -> tuple[str, str]:
    """Of two texts the part that differs, with a little of what is around it; short ones as they are."""
    if max(len(old), len(new)) <= WHOLE:
        return old, new
    start = _alike(old, new)
    end = _alike(old[start:][::-1], new[start:][::-1])
    start, end = max(0, start - AROUND), max(0, end - AROUND)
    word = old.find(" ", start, start + AROUND) + 1 if start else 0
    start = word or start
    return _cut(old, start, end), _cut(new, start, end)


def _alike(old: str, new: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))


def _cut(text: str, start: int, end: int) -> str:
    part = text[start : len(text) - end]
    if len(part) > MOST:
        part, end = part[:MOST], 1
    return ("…" if start else "") + part + ("…" if end else "")
