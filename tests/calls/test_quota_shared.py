"""What models of one account share, and what a run shows of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.limit import SharedLimit
from pipeline.calls.pacing import Pacing
from pipeline.calls.rates import Rates
from pipeline.calls.stack import wrapped
from pipeline.core.limits import Limits
from pipeline.core.usage import Usage
from stages.models import limiting
from stages.models.openai import OpenAIModel
from stages.models.presets import resolve
from stages.models.simulated import SimulatedModel
from tests.calls.saturating import request
from tests.engine.schedules import in_virtual_time


def model(use: str = "openai/gpt", **options: object) -> OpenAIModel:
    made = resolve(use, **options)
    return made if isinstance(made, OpenAIModel) else made.as_endpoint()


def resolved(options: Mapping[str, object]) -> OpenAIModel:
    made = resolve("openai/gpt", **options)
    assert isinstance(made, OpenAIModel)
    return made


def policies(definition: OpenAIModel, limits: Limits) -> tuple[SharedLimit, Pacing]:
    limit, quota = limiting.limit(definition, limits), limiting.quota(definition, limits)
    assert isinstance(limit, SharedLimit)
    assert isinstance(quota, Pacing)
    return limit, quota


async def test_two_definitions_of_an_account_and_model_share_one_quota_and_the_lower_number_holds() -> None:
    async with Limits() as limits:
        one, quota = policies(model(requests_per_minute=600, max_concurrency=8), limits)
        two, same = policies(model(requests_per_minute=300, tokens_per_minute=1000, temperature=1.0), limits)
        assert one.gate is two.gate
        assert quota.turnstile is same.turnstile is one.quota
        assert quota.turnstile.quota.given == Rates(requests=300, tokens=1000)
        assert one.gate.concurrency.most == 8
        policies(model(max_concurrency=4), limits)
        assert one.gate.concurrency.limit == 4


async def test_other_models_and_other_accounts_have_quotas_of_their_own() -> None:
    async with Limits() as limits:
        several = [model(), model("openai/other"), model(organization="org"), model(api_key_env="OTHER")]
        assert len({id(policies(each, limits)[1].turnstile) for each in several}) == 4


async def test_an_address_is_the_same_with_a_slash_at_its_end() -> None:
    one, two = (model("vllm/m", base_url=f"http://127.0.0.1:9/v1{end}") for end in ("", "/"))
    async with Limits() as limits:
        assert (one == two, one.base_url) == (True, "http://127.0.0.1:9/v1")
        assert policies(one, limits)[0].gate is policies(two, limits)[0].gate
        assert policies(one, limits)[1].turnstile is policies(two, limits)[1].turnstile


async def test_where_it_starts_is_the_users_number_or_a_few_or_open_when_rates_are_known() -> None:
    cases: tuple[tuple[dict[str, object], float], ...] = (
        ({"max_concurrency": 50}, 50),
        ({}, 20),
        ({"requests_per_minute": 500}, math.inf),
        ({"requests_per_minute": 500, "max_concurrency": 50}, 50),
    )
    for options, start in cases:
        async with Limits() as limits:
            assert policies(resolved(options), limits)[0].gate.concurrency.limit == start


async def test_what_a_simulated_model_refuses_by_chance_teaches_nothing() -> None:
    async with Limits() as limits:
        free = SimulatedModel(errors={"429": 0.5})
        assert limiting.limit(free.as_endpoint(), limits) is None
    async with Limits() as limits:
        few = SimulatedModel(max_concurrency=3)
        assert not policies(few.as_endpoint(), limits)[0].gate.adapts
    async with Limits() as limits:
        server = SimulatedModel(limits={"requests_per_minute": 60})
        assert policies(server.as_endpoint(), limits)[0].gate.adapts


async def test_the_presets_say_how_tokens_are_counted() -> None:
    assert model("openai/x").token_charge == "most"
    assert model("anthropic/x").token_charge == "uncached"
    assert model("groq/x").token_charge == "used"


@in_virtual_time
async def test_rates_that_a_server_announces_open_the_gate_and_pace_what_follows() -> None:
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-remaining-requests": "599"}

    async def answer(asked: Request) -> Reply:
        await anyio.sleep(1)
        return Reply("", Usage(1, 1, requests=1), None, headers=headers)

    async with Limits() as limits:
        limit, quota = policies(model(), limits)
        call = wrapped(answer, [limit, quota])
        async with anyio.create_task_group() as tg:
            for number in range(100):
                tg.start_soon(_run, call, number)
            await anyio.sleep(0.5)
            assert limit.gate.concurrency.in_flight == 20
            await anyio.sleep(1)
            assert limit.gate.concurrency.limit == math.inf
        assert 8.5 < anyio.current_time() < 10.5
        quota_line, gate_line = (str(each) for each in limits.statistics())
        assert quota_line.startswith("quota of openai/gpt: 600 requests/min; ")
        assert gate_line == "concurrency of openai/gpt: 0 in flight; no limit; 0 wait; 0 of 100 refused"


async def _run(call: Call, number: int) -> None:
    await call(request(number))
