"""What earlier runs with a journal have left: told before this one goes on, and counted against its budget."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.core.budget import dollars


@dataclass(frozen=True, slots=True)
class Recovered:
    """How far earlier runs came, and what is asked again.

    A call counts as in flight when its intent was in the journal and its end was not, unless it is known not to have
    left the process. After a loss of power nothing is known of that, and then the numbers are the most that may be paid
    for twice.
    """

    epochs: int  #: how often the journal was opened before
    done: int  #: roots that have ended
    open: int  #: roots that were admitted and have not
    partly: int  #: those of them of which calls are finished
    reused: int  #: the finished calls of those
    calls: int  #: finished calls of all roots
    calls_in_flight: int  #: calls of open roots that were in flight when the last run ended, and are asked again
    attempts_in_flight: int  #: their attempts
    usd: float  #: what those may have cost, as far as anybody knows
    unpriced: int  #: those of which nobody knows
    reopened: int = 0  #: roots that had ended and are opened again in this run
    poisoned: int = 0  #: open roots that are not run again, because they crashed the process too often

    left: int = 0  #: finished roots that the input has no more; their records stay
    files: tuple[str, ...] = ()  #: what was done with outputs that are made anew

    @property
    def lines(self) -> tuple[str, ...]:
        """Sentences for people."""
        said = [self._progress()]
        if self.reopened:
            said.append(f"{_count(self.reopened, 'record is', 'records are')} opened again")
        if self.calls_in_flight:
            were = _count(self.calls_in_flight, "call was", "calls were")
            again = "it is" if self.calls_in_flight == 1 else "they are"
            said.append(f"{were} in flight: {again} asked again, {self._price()}")
        if self.poisoned:
            crashed = _count(self.poisoned, "record has", "records have")
            said.append(f"{crashed} crashed the process too often and will not be run again")
        if self.left:
            said.append(left_over(self.left))
        return (*said, *self.files)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _progress(self) -> str:
        said = f"{self.done:,} done"
        if self.partly:
            said += f", {self.partly:,} partly done ({_count(self.reused, 'answer', 'answers')} reused)"
        begun = self.open - self.partly
        return said + (f", {begun:,} to do" if begun else "")

    def _price(self) -> str:
        if not self.unpriced:
            return f"which may cost about {dollars(self.usd)}"
        if self.unpriced == self.attempts_in_flight:
            return "and nobody knows what that costs"
        unknown = _count(self.unpriced, "call", "calls")
        return f"which may cost about {dollars(self.usd)}, and nobody knows the price of {unknown}"


def left_over(number: int) -> str:
    """Why an output may have more records than its input."""
    records = _count(number, "finished record is", "finished records are")
    stay = "it stays in the output" if number == 1 else "they stay in the output"
    return f"{records} not in the input any more: {stay}; the index of a record is its place in the input of its time"


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
