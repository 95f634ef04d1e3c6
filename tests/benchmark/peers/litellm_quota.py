"""LiteLLM's router: one deployment with its rpm and tpm, its own retries, and the routing that looks at them."""

from __future__ import annotations

import asyncio

import litellm
from quota_work import Work, each, main

AT_ONCE = 100


async def run(given: Work) -> tuple[int, int]:
    litellm.suppress_debug_info = True
    router = litellm.Router(
        model_list=[
            {
                "model_name": "any",
                "litellm_params": {
                    "model": "openai/any",
                    "api_base": given.base_url,
                    "api_key": "none",
                    "rpm": given.requests_per_minute,
                    "tpm": given.tokens_per_minute,
                },
            }
        ],
        routing_strategy="usage-based-routing-v2",
        num_retries=5,
    )
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(prompt: str) -> bool:
        async with room:
            answer = await router.acompletion(model="any", messages=[{"role": "user", "content": prompt}])
        return bool(answer.choices[0].message.content)

    return await each(given.prompts(), ask)


if __name__ == "__main__":
    main("litellm", run)
