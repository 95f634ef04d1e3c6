"""inspect_ai: its model, with adaptive connections, which is its answer to limits that it is not told."""

from __future__ import annotations

from inspect_ai.model import GenerateConfig, get_model
from quota_work import Work, each, main


async def run(given: Work) -> tuple[int, int]:
    config = GenerateConfig(adaptive_connections=True)
    model = get_model("openai-api/sim/any", base_url=given.base_url, api_key="none", config=config)

    async def ask(prompt: str) -> bool:
        return bool((await model.generate(prompt)).completion)

    return await each(given.prompts(), ask)


if __name__ == "__main__":
    main("inspect-ai", run)
