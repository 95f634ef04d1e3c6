"""Debug mode: who changes what it was given is found out, and named.

Items share their values (a branch with its siblings, an output with the record it becomes), so a function that changes
its argument changes what others see, now or later, as timing has it. In debug mode every function of the user's is
given copies, and each copy is compared afterwards with a second one that nobody had. So the blame is exact, and nobody
else sees the change. Nothing of this exists when debug is off.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing
from copy import deepcopy
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from pipeline.core.clashes import owner_of
from pipeline.core.differences import difference
from pipeline.core.errors import CallsClosed, InvariantError, ItemError
from pipeline.core.item import Item
from pipeline.core.places import is_ours
from pipeline.core.stage import Stage
from pipeline.core.state import ConversationState, Outputs
from pipeline.core.threads import is_blocking
from pipeline.core.visit import Visit

if TYPE_CHECKING:
    from pipeline.core.machine import Machine

F = TypeVar("F")


def watched_stage(stage: Stage, machine: Machine) -> Stage:
    """`stage` with its user's functions watched."""
    return stage.watched(lambda part, function: watched(function, owner_of(part), machine))


def watched(function: F, stage: str, machine: Machine) -> F:
    """`function` itself; in debug mode, and if it is the user's, one that raises `ItemError` of type `MutatedInput`
    when it has changed what it was given."""
    if not machine.pipeline.debug or not callable(function) or is_ours(str(getattr(function, "__module__", ""))):
        return function
    call = cast("Callable[..., Any]", function)

    def copied(args: tuple[object, ...]) -> Given:
        return Given(args, stage, machine.unwatched)

    return cast("F", _around(call, copied) if is_blocking(call) else _around_async(call, copied))


def _around(function: Callable[..., Any], copied: Callable[[tuple[object, ...]], Given]) -> Callable[..., object]:
    @wraps(function, updated=())
    def watching(*args: object) -> object:
        given = copied(args)
        with given:
            result = function(*given.args)
        return _awaited(given, cast("Awaitable[object]", result)) if inspect.isawaitable(result) else given.back(result)

    return watching


def _around_async(function: Callable[..., Any], copied: Callable[[tuple[object, ...]], Given]) -> Callable[..., object]:
    @wraps(function, updated=())
    async def watching(*args: object) -> object:
        given = copied(args)
        return await _awaited(given, function(*given.args))

    return watching


async def _awaited(given: Given, result: Awaitable[object]) -> object:
    with given:
        answer = await result
    return given.back(answer)


class Part(NamedTuple):
    """One value of what a function was given."""

    name: str
    given: object  #: the copy that it has
    before: object  #: the copy that nobody has


class Given:
    """The arguments of one call, as copies. As a context it looks, at its end, whether they are what they were."""

    def __init__(self, args: tuple[object, ...], stage: str, unwatched: dict[str, str]) -> None:
        self._stage = stage
        self._unwatched = unwatched
        self._memo: dict[int, object] = {}  # one for all, so that what is one object stays one
        self._parts: list[Part] = []
        self._originals = args
        self.args = tuple(self._argument(arg, "value" if not place else f"argument {place + 1}")
                          for place, arg in enumerate(args))  # fmt: skip

    def _argument(self, arg: object, name: str) -> object:
        if isinstance(arg, Item):
            return self._item(arg, "item.")
        if isinstance(arg, Visit):
            return WatchedVisit(arg, self._item(arg.item, "visit.item."), self)
        if isinstance(arg, ConversationState):
            return self._state(arg, "state")
        return self.copy(arg, name)

    def _item(self, item: Item, name: str) -> Item:
        return item._replace(value=self.copy(item.value, f"{name}value"), state=self._state(item.state, f"{name}state"))

    def _state(self, state: ConversationState, name: str) -> ConversationState:
        return state._replace(outputs=cast("Outputs", self.copy(state.outputs, f"{name}.outputs")))

    def copy(self, value: object, name: str) -> object:
        """A copy of `value` that is compared at the end; `value` itself if it cannot be copied."""
        try:
            given = deepcopy(value, self._memo)
            if given is not value:  # else there is nothing in it that could change
                self._parts.append(Part(name, given, deepcopy(given)))
        except Exception:
            self._unwatched[self._stage] = type(value).__name__
            return value
        return given

    def back(self, result: object) -> object:
        """What the function gave; for one of its arguments, what that is a copy of, because some look at identity."""
        if inspect.isgenerator(result):
            return self._through(cast("Generator[object]", result))
        if inspect.isasyncgen(result):
            return self._through_async(cast("AsyncGenerator[object]", result))
        for original, given in zip(self._originals, self.args, strict=True):
            if result is given:
                return original
        return result

    def _through(self, members: Generator[object]) -> Generator[object]:
        with self:
            yield from members

    async def _through_async(self, members: AsyncGenerator[object]) -> AsyncGenerator[object]:
        async with aclosing(members):
            async for member in members:
                yield member
        self.check()

    def check(self) -> None:
        """Raise `ItemError` if a copy is not what it was."""
        for name, given, before in self._parts:
            try:
                where = difference(before, given, name)
            except Exception:  # of a `==` or an attribute of theirs
                where = None
                self._unwatched[self._stage] = type(given).__name__
            if where is not None:
                raise ItemError(
                    f"stage {self._stage!r} changed what it was given, at {where}; others have the same object, "
                    "so return a new value instead of changing the one that came",
                    type="MutatedInput",
                )

    def __enter__(self) -> Given:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None or (isinstance(error, Exception) and not isinstance(error, CallsClosed | InvariantError)):
            self.check()


class WatchedVisit(Visit):
    """A visit whose item, and whose names, are copies."""

    __slots__ = ("_given", "_names")

    def __init__(self, visit: Visit, item: Item, given: Given) -> None:
        super().__init__(visit._worker, item)
        self._given = given
        self._names: Mapping[str, object] | None = None

    def names(self) -> Mapping[str, object]:
        if self._names is None:
            self._names = {
                name: self._given.copy(value, f"visit.names()[{name!r}]") for name, value in super().names().items()
            }
        return self._names
