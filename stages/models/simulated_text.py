"""What a simulated model says: that it is simulated, who it plays, what it was asked, and words drawn by the seed."""

from __future__ import annotations

import re
from random import Random
from typing import Final

SHOWN: Final = 2000  #: characters of the prompt that an answer repeats

_SENTENCE: Final = (
    "water flows through the open gate and turns the wheel while a second channel keeps its level steady because every"
    " basin below is small on purpose so that nothing waits unseen and what arrives late is counted with the rest"
)
_WORDS: Final = tuple(_SENTENCE.split())

_NAMED = re.compile(r"\b(?:you are|your name is|act as|agent:?)\s+(?:an? |the )?([^\s.,;:!?\n][^.,;:!?\n]{0,59})", re.I)


def simulated_text(prompt: str, system: str, model: str, chance: Random) -> str:
    """Return an answer to `prompt` that cannot be mistaken for a model's."""
    agent = _agent(system) or _agent(prompt)
    who = f"sim/{model} as {agent}" if agent else f"sim/{model}"
    take = f"{chance.getrandbits(32):08x}"
    return f"[simulated {who}, take {take}] {words(chance, 8)} In answer to: {shown(prompt)}"


def lengthened(text: str, tokens: int, chance: Random) -> str:
    """Return `text` with as many words after it, or as little of it, as make about `tokens` tokens."""
    missing = tokens * 4 - len(text)
    if missing <= 0:
        return text[: max(1, tokens * 4)]
    filler = ""
    while len(filler) < missing:
        filler += " " + words(chance, 12)
    return text + filler[:missing]


def words(chance: Random, count: int) -> str:
    """Return a sentence of `count` drawn words."""
    sentence = " ".join(_WORDS[chance.getrandbits(16) % len(_WORDS)] for _ in range(count))
    return sentence.capitalize() + "."


def shown(prompt: str, limit: int = SHOWN) -> str:
    """Return the prompt, or its first `limit` characters and how many there were."""
    return prompt if len(prompt) <= limit else f"{prompt[:limit]}… ({len(prompt)} characters)"


def count_tokens(text: str) -> int:
    """Return about how many tokens a text is: four characters each, and never none."""
    return max(1, -(-len(text) // 4))


def _agent(text: str) -> str | None:
    found = _NAMED.search(text)
    return found[1].strip() if found else None
