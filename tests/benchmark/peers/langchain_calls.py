"""LangChain: `ChatOpenAI.ainvoke`, workers in a task group. `abatch` would make a task for each of all inputs first."""

from __future__ import annotations

from calling import main, workers
from langchain_openai import ChatOpenAI


async def run(base_url: str, in_flight: int, calls: int) -> int:
    model = ChatOpenAI(base_url=base_url, api_key="none", model="quick", max_retries=2)

    async def call(prompt: str) -> object:
        return (await model.ainvoke(prompt)).content

    return await workers(call, in_flight, calls)


if __name__ == "__main__":
    main("langchain-openai", run)
