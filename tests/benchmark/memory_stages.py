"""The two stages of memory.yaml."""

from __future__ import annotations

from anyio.lowlevel import checkpoint


async def first(prompt: str) -> str:
    return prompt.upper()


async def second(prompt: str) -> str:
    await checkpoint()
    return prompt.strip()
