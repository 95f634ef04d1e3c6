"""Ours: a pipeline of one agent that is told the limits of the account."""

from __future__ import annotations

import sys
import time

import anyio
from quota_work import Work, report, work

import stages
from pipeline import Pipeline
from stages.models import resolve


async def run(given: Work) -> int:
    model = resolve(
        "vllm/any",
        base_url=given.base_url,
        requests_per_minute=given.requests_per_minute,
        tokens_per_minute=given.tokens_per_minute,
    )
    agent = stages.agent("ask", model=model, prompt="{{ prompt }}", concurrency=200)
    records = await Pipeline(agent, max_in_flight=256).collect(given.prompts())
    for each in records:
        if each.status != "ok":
            print(each.error, file=sys.stderr)
    return sum(each.status == "ok" for each in records)


if __name__ == "__main__":
    given, start = work(), time.perf_counter()
    answered = anyio.run(run, given, backend=sys.argv[1])
    report(given.calls, answered, time.perf_counter() - start, "penstock")
