"""What a crash has left is counted before the run goes on: what is done, what is asked again, and what it has cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.budget import Budget
from pipeline.core.errors import RunStopped
from pipeline.core.purse import PICOS, Amount, picos
from pipeline.core.recovered import Recovered
from pipeline.durability.disk.store import Store
from pipeline.durability.journal import Journal
from pipeline.durability.resume.spending import spent
from tests.durability.lives import asked, attempts, crashed, live, model, pipe
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = ["one", "two", "three", "four"]


@both_backends
def test_a_first_run_has_nothing_to_recover(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        lived = await live(pipe(), PROMPTS, Journal(tmp_path / "run"))
        assert lived.recovered is None
        assert len(lived.records) == 4

    run_in(backend, 0, body)


@both_backends
def test_what_was_done_and_in_flight_is_told_and_asked_again(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        first = pipe("{{ prompt }}", "Again: {{ a }}")
        journal = await crashed(first, PROMPTS, Journal(tmp_path / "run"), 7, tmp_path / "dead")
        lived = await live(first, PROMPTS, journal)
        assert len(lived.records) == 4
        found = lived.recovered
        assert found is not None
        assert found == Recovered(1, 0, 4, 4, 4, 4, 4, 4, found.usd, 0)
        assert found.lines == (
            "0 done, 4 partly done (4 answers reused)",
            f"4 calls were in flight: they are asked again, which may cost about ${found.usd:.6f}".rstrip("0"),
        )
        assert attempts(journal, 2) == {"b": 4}
        again = await live(first, PROMPTS, journal)
        assert again.recovered is not None
        assert again.recovered.lines == ("4 done",)
        assert attempts(journal, 3) == {}

    run_in(backend, 0, body)


@both_backends
def test_recovering_twice_finds_the_same(backend: str, tmp_path: Path) -> None:
    """A crash after the recovery, before anything else was done."""

    async def body() -> None:
        first = pipe()
        journal = await crashed(first, PROMPTS, Journal(tmp_path / "run"), 2, tmp_path / "dead")
        once = await crashed(first, PROMPTS, journal, 0, tmp_path / "dead again")
        assert asked(once, "SELECT state, count(*) FROM attempt WHERE epoch = 1 GROUP BY state") == [("ambiguous", 4)]
        lived = await live(first, PROMPTS, replace(once))
        assert lived.recovered is not None
        assert lived.recovered.epochs == 2
        assert (lived.recovered.calls_in_flight, lived.recovered.open) == (4, 4)

    run_in(backend, 0, body)


@both_backends
def test_an_answer_of_an_earlier_run_is_paid_by_its_record_and_not_by_this_run(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        first = pipe("{{ prompt }}", "Again: {{ a }}")
        journal = await crashed(first, PROMPTS, Journal(tmp_path / "run"), 7, tmp_path / "dead")
        async with first.open(PROMPTS, journal=journal) as run:
            records = [record async for record in run.results]
            assert run.statistics().usage.requests == len(PROMPTS)
        assert [record.usage.requests for record in records] == [2] * len(PROMPTS)

    run_in(backend, 0, body)


@both_backends
def test_what_ends_the_run_is_no_answer_to_a_call(backend: str, tmp_path: Path) -> None:
    """A key that is refused says nothing of the request, so a resume asks again."""

    async def body() -> None:
        refusing = pipe(model=model(errors={"401": 1.0}))
        journal = Journal(tmp_path / "run")
        for epoch in (1, 2):
            with pytest.raises(RunStopped):
                await live(refusing, PROMPTS, journal)
            assert attempts(journal, epoch) == {"a": 4}
        assert asked(journal, "SELECT DISTINCT state FROM attempt") == [("refused",)]
        assert asked(journal, "SELECT count(*) FROM fact") == [(0,)]
        assert asked(journal, "SELECT count(*) FROM settled") == [(0,)]

    run_in(backend, 0, body)


def test_prices_that_nobody_knows_are_said_to_be_unknown() -> None:
    known = Recovered(1, 5, 3, 1, 2, 10, 2, 3, 0.25, 0)
    assert known.lines == (
        "5 done, 1 partly done (2 answers reused), 2 to do",
        "2 calls were in flight: they are asked again, which may cost about $0.25",
    )
    assert replace(known, unpriced=1).lines[1].endswith("about $0.25, and nobody knows the price of 1 call")
    one = replace(known, calls_in_flight=1, attempts_in_flight=1, unpriced=1, usd=0.0, reused=1)
    assert one.lines[1] == "1 call was in flight: it is asked again, and nobody knows what that costs"
    assert one.lines[0] == "5 done, 1 partly done (1 answer reused), 2 to do"
    assert str(replace(known, calls_in_flight=0, reopened=1, poisoned=2)).splitlines()[1:] == [
        "1 record is opened again",
        "2 records have crashed the process too often and will not be run again",
    ]


@both_backends
@pytest.mark.parametrize("kills", [1, 3])
def test_a_budget_of_requests_holds_over_crashes_to_the_last_one(backend: str, tmp_path: Path, kills: int) -> None:
    async def body() -> None:
        pipeline = pipe(budget=Budget(requests=20), max_in_flight=4)
        journal = Journal(tmp_path / "0")
        prompts = [str(number) for number in range(30)]
        for kill in range(1, kills + 1):
            journal = await crashed(pipeline, prompts, journal, 2, tmp_path / f"{kill}")
        with pytest.raises(RunStopped, match="20 of 20 requests are spent"):
            await live(pipeline, prompts, journal)
        assert asked(journal, "SELECT count(*) FROM attempt") == [(20,)]
        assert asked(journal, "SELECT count(*) FROM settled") == [(20 - 4 * kills,)]

    run_in(backend, 0, body)


@both_backends
def test_money_is_counted_over_runs_as_a_purse_counts_it_within_one(backend: str, tmp_path: Path) -> None:
    """What was answered counts what it cost, what was in flight all that was put aside for it."""

    async def body() -> None:
        pipeline = pipe("{{ prompt }}", "Again: {{ a }}", budget=Budget(usd=1.0, tokens=100_000))
        journal = await crashed(pipeline, PROMPTS, Journal(tmp_path / "run"), 7, tmp_path / "dead")
        async with pipeline.open(PROMPTS, journal=journal) as run:
            (purse,) = run.statistics().budgets
            answered = asked(journal, "SELECT usd FROM attempt WHERE state = 'ok'")
            aside = [json.loads(text) for (text,) in asked(journal, "SELECT reserved FROM attempt WHERE state <> 'ok'")]
            assert (len(answered), len(aside)) == (4, 4)
            money = sum(picos(usd) for (usd,) in answered) + sum(each[0] for each in aside)
            assert purse.spent.usd == money / PICOS
            tokens = asked(
                journal,
                "SELECT sum(json_extract(usage, '$.input_tokens') + json_extract(usage, '$.output_tokens'))"
                " FROM attempt WHERE state = 'ok'",
            )
            assert purse.spent.tokens == tokens[0][0] + sum(each[1] for each in aside)
            assert run.recovered is not None
            assert run.recovered.usd == sum(each[0] for each in aside) / PICOS
            assert len([record async for record in run.results]) == 4

    run_in(backend, 0, body)


def amounts(tmp_path: Path, *attempts: tuple[object, ...]) -> Amount:
    """What a journal with these attempts has spent: state, reserved, usage, usd."""
    store = Store.create(tmp_path / "journal.db", "process", lambda point: None)
    try:
        store.change(
            *(
                (
                    "INSERT INTO attempt VALUES (?, 1, '[]', 0, 1, 1, 'm', ?, ?, ?, ?, NULL, 0)",
                    (number, reserved, state, usage, usd),
                )
                for number, (state, reserved, usage, usd) in enumerate(attempts)
            )  # type: ignore[arg-type]
        )
        return spent(store)
    finally:
        store.close(fold=True)


USED = json.dumps({"input_tokens": 7, "output_tokens": 3})
GUESSED = json.dumps({"input_tokens": 7, "output_tokens": 3, "estimated": True})
ASIDE = json.dumps([5 * 10**9, 50, 1])


@pytest.mark.parametrize(
    ("attempt", "amount"),
    [
        (("unsent", ASIDE, None, None), Amount()),
        (("refused", ASIDE, USED, 0.0), Amount(requests=1)),
        (("ok", ASIDE, USED, 0.002), Amount(2 * 10**9, 10, 1)),
        (("failed", ASIDE, USED, 0.002), Amount(2 * 10**9, 10, 1)),
        (("ok", ASIDE, USED, None), Amount(5 * 10**9, 50, 1)),
        (("ok", ASIDE, GUESSED, 0.002), Amount(5 * 10**9, 50, 1)),
        (("ambiguous", ASIDE, None, None), Amount(5 * 10**9, 50, 1)),
        (("ambiguous", None, None, None), Amount(requests=1)),
        (("ok", None, USED, None), Amount(0, 10, 1)),
        (("ambiguous", json.dumps([0, 0, 1]), None, None), Amount(requests=1)),
    ],
)
def test_each_end_of_an_attempt_counts_for_a_budget(
    tmp_path: Path, attempt: tuple[object, ...], amount: Amount
) -> None:
    assert amounts(tmp_path, attempt) == amount


def test_what_nobody_knows_is_about_the_mean_of_the_model(tmp_path: Path) -> None:
    known = [("ok", None, USED, 0.002), ("failed", None, USED, 0.004)]
    assert amounts(tmp_path, *known, ("ambiguous", None, None, None)) == Amount(9 * 10**9, 30, 3)
