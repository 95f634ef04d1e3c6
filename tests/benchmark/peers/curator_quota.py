"""Curator: its online processor, told the limits of the account."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from quota_work import report, work


def main() -> None:
    given, start = work(), time.perf_counter()
    _set_environment()
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


def _set_environment() -> None:
    """Switch off what would be kept or told, and count tokens by the vocabulary that LiteLLM brings along."""
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    vocabulary = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.update(
        CURATOR_DISABLE_CACHE="1",
        CURATOR_CACHE_DIR=tempfile.mkdtemp(),
        CURATOR_VIEWER="0",
        TELEMETRY_ENABLED="false",
        TIKTOKEN_CACHE_DIR=str(vocabulary),
        OPENAI_API_KEY="none",
    )


if __name__ == "__main__":
    main()
