"""Curator: its online processor, told limits that nothing reaches. It takes all prompts at once and blocks."""

from __future__ import annotations

import contextlib
import json
import sys
import time

from calling import PROMPT, WARM, measured, work
from curator_environment import set_environment

PLENTY = 1_000_000_000


def main() -> None:
    base_url, in_flight, calls = work()
    set_environment()
    from bespokelabs import curator

    limits = {"max_requests_per_minute": PLENTY, "max_tokens_per_minute": PLENTY, "max_concurrent_requests": in_flight}
    params = {"base_url": base_url, "max_retries": 2, "require_all_responses": False, **limits}
    model = curator.LLM(model_name="quick", backend="openai", backend_params=params)

    def answered(first: int, count: int) -> int:
        found = model([PROMPT.format(number) for number in range(first, first + count)])
        return sum(bool(each["response"]) for each in getattr(found, "dataset", found))

    with contextlib.redirect_stdout(sys.stderr):
        answered(calls, WARM)
        start, cpu = time.perf_counter(), time.process_time()
        count = answered(0, calls)
        result = measured(time.perf_counter() - start, time.process_time() - cpu, count, "bespokelabs-curator")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
