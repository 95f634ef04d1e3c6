"""What a random network computes, from its description alone: how items end when timing cannot matter.

Nodes are numbered as `networks.nodes` has them, because the names of what a partial item lacks hold these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.core.joins import Join
from tests.engine import networks as net
from tests.engine.networks import Net, digest, size


class End(NamedTuple):
    """How an item ends: `ok`, with what it lacks, `failed` or `skipped`."""

    status: str
    value: Any = None
    missing: tuple[str, ...] = ()

    @property
    def of_record(self) -> str:
        return "partial" if self.status == "ok" and self.missing else self.status


class Track(NamedTuple):
    """An item on the top-level chain: a root, or a child of one."""

    id: str
    end: End


@dataclass
class Course:
    """What becomes of some items on the top-level chain."""

    ended: list[Track] = field(default_factory=list[Track])  #: with a record, or skipped
    gathered: list[Track] = field(default_factory=list[Track])  #: what comes to the first collapsing batch
    behind: Net = ()  #: the chain behind that batch
    number: int = 0  #: of the node before that chain

    @property
    def records(self) -> Iterator[Track]:
        return (track for track in self.ended if track.end.status != "skipped")


class Oracle:
    """Computes ends without an engine. `on_error` is the pipeline's, for what fails on the top-level chain."""

    def __init__(self, nodes: Net, on_error: str = "dead_letter") -> None:
        self.net = nodes
        self.skips = on_error == "skip"

    def root(self, value: object) -> End:
        """How a root ends that leaves one record, or none."""
        (track,) = self.course([("", value)]).ended
        return track.end

    def course(self, values: Sequence[tuple[str, object]]) -> Course:
        """Follow roots with their ids and values as far as it is known who they are."""
        return self._follow(self.net, [Track(id, End("ok", value)) for id, value in values], 0)

    def record_of_batch(self, course: Course, ids: Sequence[str]) -> End:
        """How the collapsed batch of these members ends, when nothing but inner nodes follows."""
        ends = {track.id: track.end for track in course.gathered}
        values = [ends[id].value for id in ids]
        missing = tuple(dict.fromkeys(lack for id in ids for lack in ends[id].missing))
        (track,) = self._follow(course.behind, [Track("", End("ok", values, missing))], course.number).ended
        return track.end

    def _follow(self, nodes: Net, tracks: list[Track], before: int) -> Course:
        course = Course()
        for place, node in enumerate(nodes):
            if isinstance(node, net.Collapsed):
                course.gathered, course.behind, course.number = tracks, nodes[place + 1 :], before + 1
                return course
            moved: list[Track] = []
            for track in tracks:
                for after in self._moved(node, track, before + 1):
                    (moved if after.end.status == "ok" else course.ended).append(after)
            tracks = moved
            before += size((node,))
        course.ended += tracks
        return course

    def _moved(self, node: object, track: Track, here: int) -> Iterator[Track]:
        if isinstance(node, net.Expand):
            parts = net.expanded(node, track.end.value)
            place = 0
            try:
                for place, part in enumerate(parts, 1):
                    yield Track(f"{track.id}#{place - 1}", track.end._replace(value=part))
            except ValueError:
                yield Track(f"{track.id}#{place}", End("skipped" if self.skips else "failed"))
            return
        end = self._node(node, track.end, here)
        yield Track(track.id, End("skipped") if end.status == "failed" and self.skips else end)

    # -- inner nodes --------------------------------------------------------------------------------------------

    def _body(self, nodes: Net, value: object, missing: tuple[str, ...], before: int) -> End:
        end = End("ok", value, missing)
        for node in nodes:
            if end.status == "ok":
                end = self._node(node, end, before + 1)
            before += size((node,))
        return end

    def _node(self, node: object, end: End, here: int) -> End:
        value, missing = end.value, end.missing
        match node:
            case net.Work():
                return self._work(node, end)
            case net.Sieve():
                return end if net.passes(node, value) else End("skipped")
            case net.Spy():
                return end
            case net.Par():
                return self._par(node, end, here)
            case net.Poll():
                return self._poll(node, end, here)
            case net.Choice():
                place = digest(value) % (len(node.cases) + 1)
                before = here + sum(size(body) for body in node.cases[:place])
                if place < len(node.cases):
                    return self._body(node.cases[place], value, missing, before)
                return End("failed") if node.default is None else self._body(node.default, value, missing, before)
            case net.Fan():
                return self._fan(node, end, here)
            case net.Again():
                return self._again(node, end, here)
            case net.Lines():
                if node.bad is not None and digest(value) % node.keys == node.bad:
                    return End("failed")
                return self._body(node.body, value, missing, here)
            case net.Bracket():
                if node.each is not None:
                    return self._body(node.each, value, missing, here)
                return end._replace(value=net.together(node, [value])[0])
            case net.Fold():
                return self._fold(node, end, here)
        raise TypeError(node)

    def _work(self, node: net.Work, end: End) -> End:
        failed = End("skipped" if node.skip_failures else "failed")
        if node.kind == "timed" and net.pause(node, end.value) >= net.VISIT_TIMEOUT:
            return failed
        try:
            return end._replace(value=net.worked(node, end.value))
        except ValueError:
            return failed

    def _branches(self, branches: Sequence[Net], end: End, here: int) -> dict[str, End]:
        ends: dict[str, End] = {}
        for place, body in enumerate(branches):
            ends[f"b{place}"] = self._body(body, end.value, end.missing, here)
            here += size(body)
        return ends

    def _par(self, node: net.Par, end: End, here: int) -> End:
        ends = self._branches(node.branches, end, here)
        values = {label: one.value for label, one in ends.items() if one.status == "ok"}
        if node.join is None:
            joined = own_join(f"par{here}", ends, values, end.missing)
        else:
            joined = join(f"par{here}", ends, node.join, end.missing)
        if joined.status != "ok":
            return End("skipped") if node.skip_failures else joined
        return joined._replace(value=values)

    def _poll(self, node: net.Poll, end: End, here: int) -> End:
        if node.samples is None:
            ends = self._branches(node.branches, end, here)
        else:
            one = self._body(node.branches[0], end.value, end.missing, here)
            ends = {str(sample): one for sample in range(node.samples)}
        return won(f"poll{here}", node, ends, end.missing)

    def _fan(self, node: net.Fan, end: End, here: int) -> End:
        parts, missing = net.parts_of(node, end.value), end.missing
        if len(parts) > node.max_children:
            if not node.truncate:
                return End("failed")
            parts, missing = parts[: node.max_children], (*missing, f"fan{here}.rest")
        ends = {str(place): self._body(node.each, part, end.missing, here) for place, part in enumerate(parts)}
        joined = join(f"fan{here}", ends, node.join, missing)
        if joined.status != "ok":
            return joined
        values = [one.value for one in ends.values() if one.status == "ok"]
        if node.gather is None:
            return joined._replace(value=values)
        return self._body(node.gather, values, joined.missing, here + size(node.each))

    def _again(self, node: net.Again, end: End, here: int) -> End:
        failed = End("skipped" if node.skip_failures else "failed")
        now = end
        for _ in range(node.max_rounds):
            now = self._body(node.body, now.value, end.missing, here)
            if now.status != "ok":
                return failed if now.status == "failed" else now
            if net.enough(node, now.value):
                return now
        return failed if node.must else now

    def _fold(self, node: net.Fold, end: End, here: int) -> End:
        parts, missing, total = net.parts_of(node, end.value), end.missing, 1
        if len(parts) > node.max_children:
            return End("failed")
        for part in parts:
            one = self._body(node.each, part, end.missing, here)
            if one.status == "failed":
                return one
            if one.status == "ok":
                missing += tuple(lack for lack in one.missing if lack not in missing)
                try:
                    total = net.added(node, total, one.value)
                except ValueError:
                    return End("failed")
        return End("ok", total, missing)


def lacking(name: str, ends: Mapping[str, End], missing: tuple[str, ...]) -> tuple[str, ...]:
    """What a join lacks that waited for all of these."""
    lacks: list[str] = []
    for slot, one in ends.items():
        if one.status == "failed":
            lacks.append(f"{name}.{slot}")
        lacks += [what for what in one.missing if what not in missing]
    return tuple(lacks)


def join(name: str, ends: Mapping[str, End], rule: Join, missing: tuple[str, ...]) -> End:
    """Join ends where timing cannot matter: all and quorum without a timeout."""
    ok = [one for one in ends.values() if one.status == "ok"]
    failed = [one for one in ends.values() if one.status == "failed"]
    if (rule.rule == "all" and failed) or (rule.rule == "quorum" and len(ok) < rule.k):
        return End("failed")
    return End("ok", None, (*missing, *lacking(name, ends, missing)))


def own_join(name: str, ends: Mapping[str, End], values: Mapping[str, object], missing: tuple[str, ...]) -> End:
    """Join ends as `networks.judged` says. What it calls ok lacks nothing that it could have used."""
    failed = sum(one.status == "failed" for one in ends.values())
    verdict = net.judged(values, failed)
    if verdict == "failed":
        return End("failed")
    if verdict == "ok":
        ends = {slot: one for slot, one in ends.items() if one.status == "ok"}
        return End("ok", None, (*missing, *lacking(name, ends, missing)))
    return End("ok", None, (*missing, *(lacking(name, ends, missing) or (name,))))


def won(name: str, node: net.Poll, ends: Mapping[str, End], missing: tuple[str, ...]) -> End:
    """The end of a vote over these ends."""
    votes: dict[int, list[End]] = {}
    for one in ends.values():
        if one.status == "ok":
            votes.setdefault(net.answer(one.value), []).append(one)
    needed = {"majority": len(ends) // 2 + 1, "plurality": 1}.get(node.needed, node.needed)
    most = max(map(len, votes.values()), default=0)
    if most < needed:
        return End("failed")
    best = [answers for answers in votes.values() if len(answers) == most]
    others = sorted(map(len, votes.values()))[:-1]
    failed = sum(one.status == "failed" for one in ends.values())
    winner = best[0][0]
    if most > max(others, default=0) + failed:
        return End("ok", winner.value, (*missing, *(what for what in winner.missing if what not in missing)))
    if len(best) > 1 and not node.first_of_tied:
        return End("failed")
    return End("ok", winner.value, (*missing, *(lacking(name, ends, missing) if failed else ())))
