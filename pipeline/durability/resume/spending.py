"""What the attempts in a journal cost: known, put aside, or guessed from others of the same model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from typing import Final, NamedTuple, TypeAlias, cast

from pipeline.core.codec import decode
from pipeline.core.purse import Amount, picos
from pipeline.durability.disk.departures import Departed
from pipeline.durability.disk.schema import Value
from pipeline.durability.disk.store import Store

#: attempts of calls of open roots that were in flight when the last run that made any ended. Those that a recovery
#: has marked have no usage; one that ended by itself has.
_IN_FLIGHT: Final = (
    "SELECT model, state, reserved, usage, usd, root, path, ordinal, id"
    " FROM attempt WHERE (state = 'started' OR (state = 'ambiguous' AND usage IS NULL))"
    " AND epoch = (SELECT max(epoch) FROM attempt)"
    " AND root IN (SELECT seq FROM root) AND root NOT IN (SELECT root FROM settled)"
    " AND NOT EXISTS (SELECT 1 FROM fact WHERE fact.root = attempt.root AND fact.path = attempt.path"
    " AND fact.kind = 'call' AND fact.ordinal = attempt.ordinal)"
)

_COLUMNS: Final = "SELECT model, state, reserved, usage, usd"

_ONE: Final = Amount(requests=1)

Attempt: TypeAlias = tuple[Value, ...]


class Mean(NamedTuple):
    """What an attempt of a model comes to on average."""

    picos: int | None  #: None: no price is known
    tokens: int


class Means:
    """The means of all models in a journal, of attempts that were answered."""

    def __init__(self, store: Store) -> None:
        rows = store.read(
            "SELECT model, avg(usd), avg(json_extract(usage, '$.input_tokens') +"
            " json_extract(usage, '$.output_tokens')) FROM attempt WHERE state IN ('ok', 'failed') GROUP BY model"
        )
        self._means = {
            cast(str, model): Mean(None if usd is None else picos(cast(float, usd)), round(cast(float, tokens or 0.0)))
            for model, usd, tokens in rows
        }

    def of(self, model: str) -> Mean:
        return self._means.get(model, Mean(None, 0))

    def price(self, attempt: Attempt) -> int | None:
        """What an attempt may have cost of which nobody knows, in picodollars; None if that cannot be said."""
        model, _, reserved, _, _ = attempt
        aside = _reserved(reserved)
        return aside.picos if aside is not None and aside.picos else self.of(cast(str, model)).picos

    def amount(self, attempt: Attempt) -> Amount:
        """What an attempt counts for against a budget, as a purse counts it in the run that makes it: all that was put
        aside when nobody knows, and one request whatever became of it, if it left."""
        model, state, reserved, usage, usd = attempt
        if state == "unsent":
            return Amount()
        if state == "refused":
            return _ONE
        aside, mean = _reserved(reserved), self.of(cast(str, model))
        counts = cast("Mapping[str, object]", {} if usage is None else decode(cast(str, usage).encode()))
        known = state in ("ok", "failed") and not counts.get("estimated")
        if not known or (usd is None and aside is not None and aside.picos):
            aside = aside or _ONE  # what was not limited then was not put aside
            return Amount(aside.picos or mean.picos or 0, aside.tokens or mean.tokens, 1)
        tokens = cast(int, counts["input_tokens"]) + cast(int, counts["output_tokens"])
        return Amount(picos(cast(float, usd)) if usd is not None else mean.picos or 0, tokens, 1)


def spent(store: Store) -> Amount:
    """What all attempts in a journal count for."""
    means = Means(store)
    money = tokens = requests = 0
    for attempt in store.read(f"{_COLUMNS} FROM attempt WHERE state <> 'unsent'"):
        one = means.amount(attempt)
        money, tokens, requests = money + one.picos, tokens + one.tokens, requests + one.requests
    return Amount(money, tokens, requests)


class InFlight(NamedTuple):
    """What was in flight when the last run ended."""

    attempts: list[Attempt]
    calls: int  #: of those


def in_flight(store: Store, unsent: Set[tuple[int, int]]) -> InFlight:
    """What was in flight when the last run ended, without the attempts, by root and id, that are known not to have
    left."""
    found = [row for row in store.read(_IN_FLIGHT) if (row[5], row[8]) not in unsent]
    return InFlight([row[:5] for row in found], len({row[5:8] for row in found}))


def not_sent(store: Store, departed: Departed) -> list[tuple[int, int]]:
    """The attempts without an end, by root and id, that surely have not left the process."""
    begun = cast(
        "Iterator[tuple[int, int, int]]", store.read("SELECT root, id, epoch FROM attempt WHERE state = 'started'")
    )
    return [(root, id) for root, id, epoch in begun if not departed.may_have_left(id, epoch)]


def _reserved(value: Value) -> Amount | None:
    return None if value is None else Amount(*cast("list[int]", decode(cast(str, value).encode())))
