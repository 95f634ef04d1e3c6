"""Reads what a client asked a simulated model, and writes the completion: text or JSON, counts and all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import cast

from stages.models.simulated_schema import Conforming
from stages.models.simulated_text import count_tokens, lengthened, shown, simulated_text

ABOUT = 200  #: characters of the prompt that each text in a JSON answer shows


@dataclass(frozen=True, slots=True)
class Asked:
    """The parts of a request body that an answer depends on."""

    prompt: str  #: the last user message
    system: str
    characters: int  #: of all messages together
    schema: Mapping[str, object] | None
    json_wanted: bool
    most_tokens: int | None

    @classmethod
    def read(cls, body: Mapping[str, object]) -> Asked:
        messages = [_mapping(each) for each in cast("Sequence[object]", body.get("messages") or [])]
        texts = [(str(each.get("role")), str(each.get("content") or "")) for each in messages]
        wanted = _mapping(body.get("response_format"))
        schema = _mapping(wanted.get("json_schema")).get("schema")
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        return cls(
            prompt=next((text for role, text in reversed(texts) if role == "user"), ""),
            system="\n".join(text for role, text in texts if role == "system"),
            characters=sum(len(text) for _, text in texts),
            schema=_mapping(schema) if schema is not None else None,
            json_wanted=wanted.get("type") == "json_object",
            most_tokens=most if isinstance(most, int) else None,
        )


def completion(asked: Asked, model: str, fault: str | None, length: int | None, chance: Random) -> dict[str, object]:
    """Return the body of a 200, with `fault` in it when there is one; `length` is in tokens."""
    text = "" if fault == "empty" else _text(asked, model, length, chance)
    finish = "content_filter" if fault == "filtered" else "stop"
    room = max(1, count_tokens(text) // 2) if fault == "length" else asked.most_tokens
    if room is not None and count_tokens(text) > room:
        text, finish = text[: room * 4], "length"
    message: dict[str, object] = {"role": "assistant", "content": text}
    if fault == "refusal":
        message = {"role": "assistant", "content": None, "refusal": "[simulated] I will not answer that."}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    read, written = max(1, -(-asked.characters // 4)), count_tokens(text)
    return {
        "id": f"sim-{chance.getrandbits(64):016x}",
        "object": "chat.completion",
        "model": model,
        "choices": None if fault == "null_choices" else [choice],
        "usage": {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written},
    }


def _text(asked: Asked, model: str, length: int | None, chance: Random) -> str:
    if asked.schema is not None:
        about = shown(asked.prompt, ABOUT)
        return json.dumps(Conforming(asked.schema, about, chance).value(), ensure_ascii=False)
    if asked.json_wanted:
        return json.dumps({"simulated": simulated_text(asked.prompt, asked.system, model, chance)}, ensure_ascii=False)
    text = asked.prompt if model == "echo" else simulated_text(asked.prompt, asked.system, model, chance)
    return text if length is None or model == "echo" else lengthened(text, length, chance)


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
