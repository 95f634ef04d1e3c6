"""What has to hold after the last life of a run, whatever happened in those before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.durability.crash.kept import Kept
from tests.durability.crash.ledger import Seen
from tests.durability.crash.playing import Life, Played, Undisturbed
from tests.durability.crash.workloads import Workload

REFUSED = ("refused", "unsent")  #: attempts that cost nothing


@dataclass
class Verdict:
    """`faults` is what does not hold. The rest are counts, over all crashes of a case."""

    faults: list[str] = field(default_factory=list[str])
    begun: int = 0  #: attempts that had been begun at a crash and not ended
    unsent: int = 0  #: those of them that never reached the server
    repeated: int = 0  #: those of them that were sent again later
    gone: int = 0  #: those of them that were not needed any more, as the losers of a race


def judge(workload: Workload, right: Undisturbed, played: Played) -> Verdict:
    verdict = Verdict()
    if played.last.failed is not None:
        verdict.faults.append(f"life {len(played.lives) - 1} failed: {played.last.failed}")
        return verdict
    faults = verdict.faults
    faults += against_output(workload, right, played.last)
    for number, life in enumerate(played.lives):
        faults += against_moment(life, number, played.seen)
        faults += (f"life {number}: verify says: {problem}" for problem in life.problems)
    for number, life in played.crashes():
        faults += done_again(life.kept, number, played.seen)
        faults += _count(workload, verdict, life, number, played)
    faults += _against_ledger(workload, played)
    return verdict


def against_output(workload: Workload, right: Undisturbed, last: Life) -> Iterator[str]:
    """Byte for byte the undisturbed run's, or the same lines when they come as they are done."""
    wanted, got = right.kept, last.kept
    if got.sound != "ok":
        yield f"the journal is damaged: {got.sound}"
    if workload.ordered and got.lines != wanted.lines:
        yield _difference("the lines differ", wanted.lines, got.lines)
    elif Counter(got.lines) != Counter(wanted.lines):
        yield _difference("the lines are other ones", wanted.lines, got.lines)
    if last.output is not None and last.output != got.output:
        yield f"the output is not what the journal says: {last.output!r} instead of {got.output!r}"
    if Counter(zip(got.roots, got.settled, strict=False)) != Counter(zip(wanted.roots, wanted.settled, strict=False)):
        yield f"the roots ended as {got.settled}, not as {wanted.settled}"
    if len(got.settled) != len(got.roots):
        yield f"{len(got.roots)} roots, and {len(got.settled)} settled"
    if any(attempt.state == "started" for attempt in got.attempts):
        yield "an attempt is begun and never ended"


def against_moment(life: Life, number: int, seen: tuple[Seen, ...], *, written: bool = True) -> Iterator[str]:
    """What holds at each moment: nothing has left the process that the journal does not know. `written`: the output is
    what was written, not what a disk had."""
    known = {(attempt.call, attempt.number) for attempt in life.kept.attempts}
    for each in seen:
        if each.life <= number and each.what == "arrived" and (each.call, each.attempt[3]) not in known:
            yield f"life {number}: {each.attempt} reached the server, and the journal does not know it"
        if each.life <= number and each.what == "delivered" and each.name not in life.kept.ids:
            yield f"life {number}: the record {each.name} was delivered, and has no line"
    if written and life.output is not None and not life.kept.output.startswith(life.output):
        yield f"life {number}: the output has what the journal does not: {life.output!r}, {life.kept.output!r}"


def done_again(kept: Kept, number: int, seen: tuple[Seen, ...]) -> Iterator[str]:
    """What the journal had at a crash and was done again after it."""
    for what, kind in (("arrived", "call"), ("value", "value"), ("tool", "tool")):
        done = kept.done(kind)
        for each in seen:
            if each.life > number and each.what == what and each.call in done:
                yield f"crash {number}: {kind} {each.call} was known, and was made again in life {each.life}"


def _count(workload: Workload, verdict: Verdict, life: Life, number: int, played: Played) -> Iterator[str]:
    """Compare what was announced with what the server saw twice."""
    begun = [each for each in life.kept.attempts if each.state == "started"]
    names = Counter((each.call, each.number) for each in begun)
    here = Counter(
        (each.call, each.attempt[3]) for each in played.seen if each.life == number and each.what == "arrived"
    )
    later = {(each.call, each.attempt[3]) for each in played.seen if each.life > number and each.what == "arrived"}
    sent = names & here
    repeated = Counter({name: count for name, count in sent.items() if name in later})
    verdict.begun += len(begun)
    verdict.unsent += len(begun) - sent.total()
    verdict.repeated += repeated.total()
    verdict.gone += sent.total() - repeated.total()
    if sent.total() != repeated.total() and not workload.races:
        yield f"crash {number}: {sorted(sent - repeated)} were in flight, and are not made again"
    free = {(each.call, each.number) for each in life.kept.attempts if each.state in REFUSED}
    silent = {name for name in here if name in later and name not in names and name not in free}
    if silent:
        yield f"crash {number}: {sorted(silent)} were sent again, and were not announced"
    most = workload.phases[life.phase].bounds.calls
    if most is not None and len({call for call, _ in repeated}) > most:
        yield f"crash {number}: {repeated.total()} calls were repeated, and {most} can be in flight"
    told, doubtful = played.lives[number + 1].printed, _in_flight(life, played)
    if told is not None and told != doubtful:
        yield f"crash {number}: the resume said {told}, and {doubtful} were in flight"


def _in_flight(life: Life, played: Played) -> int:
    """The attempts in doubt that reached the server, in the life that made them."""
    maker = next((number for number, each in enumerate(played.lives) if each.kept.last == life.kept.last), None)
    arrived = {(each.call, each.attempt[3]) for each in played.seen if each.life == maker and each.what == "arrived"}
    return sum((each.call, each.number) in arrived for each in life.kept.in_doubt)


def _against_ledger(workload: Workload, played: Played) -> Iterator[str]:
    """No budget is exceeded over all lives."""
    most = None if workload.budget is None else workload.budget.requests
    arrived = sum(each.what == "arrived" for each in played.seen)
    if most is not None and arrived > most:
        yield f"{arrived} requests were sent, and {most} were allowed"
    for number, life in enumerate(played.lives):
        budget = workload.phases[life.phase].budget
        until = sum(each.what == "arrived" for each in played.seen if each.life <= number)
        if budget is not None and budget.requests is not None and until > budget.requests:
            yield f"life {number}: {until} requests were sent by then, and {budget.requests} were allowed"


def _difference(what: str, wanted: tuple[bytes, ...], got: tuple[bytes, ...]) -> str:
    missing, more = Counter(wanted) - Counter(got), Counter(got) - Counter(wanted)
    if not missing and not more:
        return f"{what}: in another order"
    shown = [f"  - {line.decode()}" for line in missing] + [f"  + {line.decode()}" for line in more]
    return "\n".join([what, *shown])
