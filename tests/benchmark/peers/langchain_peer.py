"""LangChain: a sequence of `RunnableLambda`, results taken with `abatch_as_completed`.

That is its form that runs items at the same time, limits how many, and gives results as they come. It takes all inputs
at once and makes a task for each before the first one runs. With concurrency 1 the sequence is invoked item by item,
which is faster than a batch of one at a time.
"""

from __future__ import annotations

from langchain_core.runnables import RunnableLambda, RunnableSequence
from workload import Stage, main


async def run(stages: list[Stage], items: int, concurrency: int) -> int:
    steps = [RunnableLambda(stage) for stage in stages]
    chain = RunnableSequence(*steps) if len(steps) > 1 else steps[0]
    count = 0
    if concurrency == 1:
        for value in range(items):
            await chain.ainvoke(value)
            count += 1
        return count
    async for _ in chain.abatch_as_completed(range(items), {"max_concurrency": concurrency}):
        count += 1
    return count


if __name__ == "__main__":
    main("langchain-core", run)
