"""What most write first: a semaphore of 100 around the SDK, whose own retries are left on."""

from __future__ import annotations

import asyncio

from openai import AsyncOpenAI
from quota_work import Work, each, main


async def run(given: Work) -> tuple[int, int]:
    room = asyncio.Semaphore(100)
    async with AsyncOpenAI(base_url=given.base_url, api_key="none") as client:

        async def ask(prompt: str) -> bool:
            async with room:
                answer = await client.chat.completions.create(
                    model="any", messages=[{"role": "user", "content": prompt}]
                )
            return bool(answer.choices[0].message.content)

        return await each(given.prompts(), ask)


if __name__ == "__main__":
    main("openai", run)
