"""The way of OpenAI's cookbook, `api_request_parallel_processor.py`.

Two buckets that begin full and refill all the time, a request taken from both by an estimate of its tokens; all stop
for 15 s after a refusal; a request is tried 5 times. The numbers are the script's own defaults.
"""

from __future__ import annotations

import asyncio
import time

from openai import AsyncOpenAI, RateLimitError
from quota_work import Work, each, main

ATTEMPTS = 5
PAUSE = 15.0
LOOP = 0.001  #: its loop sleeps so long after each request
MAX_TOKENS = 380  #: what the script would read as max_tokens of a request


class Buckets:
    """Requests and tokens that may be used now."""

    def __init__(self, given: Work) -> None:
        self.requests = self.most_requests = float(given.requests_per_minute)
        self.tokens = self.most_tokens = float(given.tokens_per_minute)
        self.at = time.monotonic()
        self.refused_at = -PAUSE

    def take(self, tokens: int) -> bool:
        now = time.monotonic()
        passed, self.at = now - self.at, now
        self.requests = min(self.most_requests, self.requests + self.most_requests * passed / 60)
        self.tokens = min(self.most_tokens, self.tokens + self.most_tokens * passed / 60)
        if now - self.refused_at < PAUSE or self.requests < 1 or self.tokens < tokens:
            return False
        self.requests -= 1
        self.tokens -= tokens
        return True


async def run(given: Work) -> tuple[int, int]:
    buckets, turn = Buckets(given), asyncio.Lock()
    async with AsyncOpenAI(base_url=given.base_url, api_key="none", max_retries=0) as client:

        async def ask(prompt: str) -> bool:
            for attempt in range(ATTEMPTS):
                async with turn:
                    while not buckets.take(len(prompt) // 4 + MAX_TOKENS):  # noqa: ASYNC110 - as the script does
                        await asyncio.sleep(LOOP)
                    await asyncio.sleep(LOOP)
                try:
                    answer = await client.chat.completions.create(
                        model="any", messages=[{"role": "user", "content": prompt}]
                    )
                except RateLimitError:
                    buckets.refused_at = time.monotonic()
                    if attempt == ATTEMPTS - 1:
                        raise
                else:
                    return bool(answer.choices[0].message.content)
            return False

        return await each(given.prompts(), ask)


if __name__ == "__main__":
    main("openai", run)
