"""Curator: its online processor, told the limits of the account."""

from __future__ import annotations

import contextlib
import sys
import time

from curator_environment import set_environment
from quota_work import report, work


def main() -> None:
    given, start = work(), time.perf_counter()
    set_environment()
    from bespokelabs import curator

    model = curator.LLM(
        model_name="any",
        backend="openai",
        backend_params={
            "base_url": given.base_url,
            "max_requests_per_minute": given.requests_per_minute,
            "max_tokens_per_minute": given.tokens_per_minute,
            "max_retries": 5,
            "require_all_responses": False,
        },
    )
    with contextlib.redirect_stdout(sys.stderr):
        answers = model(given.prompts())
    rows = getattr(answers, "dataset", answers)
    answered = sum(bool(each["response"]) for each in rows)
    report(given.calls, answered, time.perf_counter() - start, "bespokelabs-curator")


if __name__ == "__main__":
    main()
