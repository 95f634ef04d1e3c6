"""An iteration through operators that are generators, as an object that can be left at any point.

The operators wait for nothing but the records, and never close those. So they can be closed at once, wherever the
iteration stands, and the records are closed by the task that iterates: at the end, at an error, or by `aclose`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar, cast

from anyio.lowlevel import checkpoint

from pipeline.core.errors import PipelineError
from pipeline.core.iteration import close
from pipeline.core.streams import BURST

T = TypeVar("T")

Operate: TypeAlias = Callable[[AsyncIterator[object]], AsyncIterator[T]]


class Shaped(AsyncIterator[T]):
    """What comes out of the operators, one at a time. What changes: `_out`, made when it is first asked for, and
    `_ended`, the name of what ended it.

    A wait that is cancelled ends the iteration, as it does every generator, and so does an error. After that it raises
    `PipelineError` rather than look like one that came to its end.
    """

    def __init__(self, records: AsyncIterator[object], operate: Operate[T]) -> None:
        self._records = records
        self._operate = operate
        self._out: AsyncIterator[T] | None = None
        self._ended: str | None = None

    def __aiter__(self) -> Shaped[T]:
        return self

    async def __anext__(self) -> T:
        if self._ended is not None:
            if self._ended == StopAsyncIteration.__name__:
                raise StopAsyncIteration
            raise PipelineError(f"this iteration was ended by {self._ended}; what follows was not read")
        if self._out is None:
            self._out = self._operate(Pulled(self._records))
        try:
            return await anext(self._out)
        except GeneratorExit:  # the task is destroyed: nothing can be waited for any more
            raise
        except BaseException as error:
            self._ended = type(error).__name__
            await close(self._records)
            raise

    async def aclose(self) -> None:
        """End the iteration: close the operators and the records."""
        self._ended = self._ended or StopAsyncIteration.__name__
        if self._out is not None:
            await close(self._out)
        await close(self._records)

    def __del__(self) -> None:
        # a loop that was left early: without this the operators would be closed by the event loop, later and in another
        # task, which trio warns of
        out = self._out
        if self._ended is None and isinstance(out, AsyncGenerator):
            with suppress(StopIteration, RuntimeError):
                cast("AsyncGenerator[T]", out).aclose().send(None)


class Pulled(AsyncIterator[object]):
    """Records without their closing, so that the operators cannot do it."""

    def __init__(self, records: AsyncIterator[object]) -> None:
        self._records = records

    def __anext__(self) -> Awaitable[object]:
        return anext(self._records)


class Members(AsyncIterator[T], Generic[T]):
    """The members of a plain iterable, with a checkpoint every `BURST`."""

    def __init__(self, members: Iterable[T]) -> None:
        self._members = iter(members)
        self._burst = 0

    async def __anext__(self) -> T:
        self._burst += 1
        if self._burst >= BURST:
            self._burst = 0
            await checkpoint()
        for member in self._members:
            return member
        raise StopAsyncIteration

    async def aclose(self) -> None:
        members = self._members
        if isinstance(members, Generator):
            cast("Generator[T]", members).close()
