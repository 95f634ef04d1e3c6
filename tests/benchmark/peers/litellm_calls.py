"""LiteLLM: `acompletion` with its own retries, workers in a task group."""

from __future__ import annotations

import litellm
from calling import main, workers

litellm.telemetry = False
litellm.suppress_debug_info = True


async def run(base_url: str, in_flight: int, calls: int) -> int:
    async def call(prompt: str) -> object:
        reply = await litellm.acompletion(
            model="openai/quick",
            messages=[{"role": "user", "content": prompt}],
            api_base=base_url,
            api_key="none",
            num_retries=2,
        )
        return reply.choices[0].message.content

    return await workers(call, in_flight, calls)


if __name__ == "__main__":
    main("litellm", run)
