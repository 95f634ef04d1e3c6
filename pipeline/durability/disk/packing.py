"""A record of the input as bytes in the journal, and back, so that a resume needs no input to finish what was begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from hashlib import blake2b
from typing import NamedTuple, cast

from pipeline.core.codec import canonical, decode, encode
from pipeline.core.errors import ItemError
from pipeline.core.inputs import input_of_text
from pipeline.core.record import Input
from pipeline.core.state import Message, Role, ToolCall


def pack(record: Input) -> bytes:
    """The record as JSON. Raises `NotJson` for one that code gave and that has none."""
    packed: dict[str, object] = {} if record.position is None else {"position": record.position}
    if _is_text(record):
        return encode({"text": record.prompt, **packed})
    if record.value is not record.fields:
        packed["value"] = record.value
    if record.fields:
        packed["fields"] = dict(record.fields)
    if record.prompt is not None:
        packed["prompt"] = record.prompt
    if record.messages:
        packed["messages"] = [asdict(message) for message in record.messages]
    if record.defect is not None:
        packed["defect"] = {"type": record.defect.type, "message": record.defect.message}
    return encode(packed)


def _is_text(record: Input) -> bool:
    """Whether it is what `input_of_text` makes of its prompt."""
    said = (record.value, record.fields, record.messages, record.defect)
    return record.prompt is not None and said == (record.prompt, {"prompt": record.prompt}, (), None)


def unpack(data: bytes, id: str) -> Input:
    """The record that was packed."""
    packed = cast("Mapping[str, object]", decode(data))
    position = cast("int | None", packed.get("position"))
    if "text" in packed:
        return input_of_text(str(packed["text"]), id=id)._replace(position=position)
    fields = cast("Mapping[str, object]", packed.get("fields", {}))
    defect = cast("Mapping[str, str] | None", packed.get("defect"))
    return Input(
        packed.get("value", fields),
        id,
        cast("str | None", packed.get("prompt")),
        fields,
        tuple(_message(message) for message in cast("list[Mapping[str, object]]", packed.get("messages", []))),
        None if defect is None else ItemError(defect["message"], type=defect["type"]),
        position,
    )


class Read(NamedTuple):
    """Stands for what a record says that was compared already."""

    digest: bytes


def digest(record: Input) -> bytes:
    """16 bytes of what the record says, its id apart."""
    if isinstance(record.value, Read):
        return record.value.digest
    value = record.value if record.defect is None else [record.value, record.defect.message]
    return blake2b(canonical(value), digest_size=16).digest()


def _message(packed: Mapping[str, object]) -> Message:
    calls = cast("list[Mapping[str, str]]", packed.get("tool_calls", []))
    return Message(
        cast(Role, packed["role"]),
        str(packed["content"]),
        cast("str | None", packed.get("name")),
        tuple(ToolCall(**call) for call in calls),
        cast("str | None", packed.get("tool_call_id")),
    )
