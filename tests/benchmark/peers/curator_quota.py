"""Curator: its online processor over LiteLLM, told the limits of the account."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time

os.environ.update(CURATOR_DISABLE_CACHE="1", TELEMETRY_ENABLED="false", CURATOR_VIEWER="0")
os.environ["CURATOR_CACHE_DIR"] = tempfile.mkdtemp()

from bespokelabs import curator
from quota_work import report, work


def main() -> None:
    given = work()
    os.environ["OPENAI_API_KEY"] = "none"
    start = time.perf_counter()
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
    seconds = time.perf_counter() - start
    rows = getattr(answers, "dataset", answers)
    report(given.calls, sum(bool(each["response"]) for each in rows), seconds, "bespokelabs-curator")


if __name__ == "__main__":
    main()
