"""pydantic-ai: `Agent.run`, workers in a task group."""

from __future__ import annotations

from calling import main, workers
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


async def run(base_url: str, in_flight: int, calls: int) -> int:
    agent = Agent(OpenAIChatModel("quick", provider=OpenAIProvider(base_url=base_url, api_key="none")), retries=2)

    async def call(prompt: str) -> object:
        return (await agent.run(prompt)).output

    return await workers(call, in_flight, calls)


if __name__ == "__main__":
    main("pydantic-ai-slim", run)
