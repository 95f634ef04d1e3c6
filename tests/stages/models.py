"""A model whose answers a test writes down: an open model like any other, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from pipeline.core.ports import Visit
from pipeline.core.state import Message


@dataclass(frozen=True)
class ScriptedReply:
    text: str
    parsed: object = None


@dataclass(frozen=True)
class ScriptedModel:
    """Answers with `answer(last message)`; what it was asked is in `asked`."""

    answer: Callable[[str], object] = str
    asked: list[tuple[Message, ...]] = field(default_factory=list, compare=False)
    params: list[dict[str, object]] = field(default_factory=list, compare=False)
    opened: list[str] = field(default_factory=list, compare=False)

    def open(self) -> AbstractAsyncContextManager[ScriptedModel]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[ScriptedModel]:
        self.opened.append("opened")
        try:
            yield self
        finally:
            self.opened.append("closed")

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> ScriptedReply:
        self.asked.append(tuple(messages))
        self.params.append(params)
        visit.admit_call()
        answer = self.answer(messages[-1].content)
        return ScriptedReply(answer, None) if isinstance(answer, str) else ScriptedReply("structured", answer)
