"""What a simulated model answers, whatever the protocol: text, JSON that fits a schema, a refusal or a tool call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, TypeAlias

from stages.models.simulated_asked import Asked
from stages.models.simulated_schema import Conforming
from stages.models.simulated_text import count_tokens, lengthened, shown, simulated_text

ABOUT: Final = 200  #: characters of the prompt that each text in a JSON answer shows
RESULT: Final = 500  #: characters of each tool's answer that the final text mentions

_INSTEAD: Final = ("empty", "filtered", "length", "refusal")  #: faults that are said in place of a tool call

Finish: TypeAlias = Literal["stop", "length", "content_filter", "tool_calls"]


@dataclass(frozen=True, slots=True)
class ToolWish:
    """A tool that the model wants to be called; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One answer. `read` and `written` are tokens."""

    id: str
    model: str
    text: str
    finish: Finish
    read: int
    written: int
    refusal: str | None = None
    wish: ToolWish | None = None


def said(asked: Asked, fault: str | None, length: int | None, chance: Random) -> Said:
    """Return the answer to `asked`, with `fault` in it when it is one of what is said; `length` is in tokens.

    Tools that are offered are called first, one of them, unless the conversation holds a tool's answer already. The
    model "echo" answers with the prompt and calls none.
    """
    wish = None if fault in _INSTEAD or asked.model == "echo" else _wish(asked, chance)
    text = "" if fault == "empty" or wish is not None else _text(asked, length, chance)
    finish: Finish = "tool_calls" if wish is not None else "stop"
    room = max(1, count_tokens(text) // 2) if fault == "length" else asked.most_tokens
    if room is not None and count_tokens(text) > room:
        text, finish = text[: room * 4], "length"
    elif fault == "length":
        finish = "length"
    return Said(
        id=f"sim-{chance.getrandbits(64):016x}",
        model=asked.model,
        text=text,
        finish="content_filter" if fault == "filtered" and finish == "stop" else finish,
        read=max(1, -(-asked.characters // 4)),
        written=count_tokens(text if wish is None else wish.arguments),
        refusal="[simulated] I will not answer that." if fault == "refusal" else None,
        wish=wish,
    )


def _wish(asked: Asked, chance: Random) -> ToolWish | None:
    if not asked.tools or asked.results:
        return None
    tool = asked.tools[chance.getrandbits(32) % len(asked.tools)]
    drawn = Conforming(tool.parameters, shown(asked.prompt, ABOUT), chance).value()
    arguments = json.dumps(drawn, ensure_ascii=False) if isinstance(drawn, dict) else "{}"
    return ToolWish(f"call_{chance.getrandbits(48):012x}", tool.name, arguments)


def _text(asked: Asked, length: int | None, chance: Random) -> str:
    if asked.schema is not None:
        about = shown(asked.prompt, ABOUT)
        return json.dumps(Conforming(asked.schema, about, chance).value(), ensure_ascii=False)
    if asked.json_wanted:
        text = simulated_text(asked.prompt, asked.system, asked.model, chance)
        return json.dumps({"simulated": text}, ensure_ascii=False)
    if asked.model == "echo":
        return asked.prompt
    text = simulated_text(asked.prompt, asked.system, asked.model, chance)
    if asked.results:
        text += " The tools said: " + "; ".join(shown(each, RESULT) for each in asked.results)
    return text if length is None else lengthened(text, length, chance)
