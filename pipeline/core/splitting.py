"""What an item is split into by a function, with a journal: written before anything is made of it, and taken from there
when the item is run again.

A list is written as a whole, in one piece. Of an iterator each part is written as it is given, and at last how it
ended; when a run is interrupted before that, the parts that are known come first, and only then the function is called
again, which has to give the same ones first. Parts that are JSON, but would come back as something else (an object of a
class), are given by the function each time, and compared with those of the first time.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, NamedTuple, cast

from pipeline.core.codec import NotJson, decode, encode
from pipeline.core.decided import KIND as DECIDED
from pipeline.core.errors import CallsClosed, Failure, ItemError, Skip, is_bug
from pipeline.core.item import Item
from pipeline.core.iteration import each_of, resolved
from pipeline.core.marking import in_turn
from pipeline.core.ports import Page
from pipeline.core.replay import is_exact, read_failure, written_failure

SPLIT: Final = "split"
PART: Final = "part"


class SplitChanged(ItemError):
    """A function gave other parts than before its run was interrupted, and those were worked on."""


class Known(NamedTuple):
    """What earlier runs wrote of the parts of one item."""

    lot: int  #: counts how often the function began anew
    parts: list[object]
    exact: bool  #: they are what the function gave, and not only its JSON
    ended: bool
    failure: Failure | None = None  #: how it ended, if not well
    skipped: bool = False


async def parts_of(
    give: Callable[[], object], item: Item, stage: str, what: str, *, pure: bool
) -> AsyncGenerator[object]:
    """The parts that `give` gives for an item, or gave in an earlier run. `what` names their origin in errors.

    Raises `ItemError` for what is no iterable, `NotJson` for a part without a JSON form, and `SplitChanged`.
    """
    page = item.frame.root.page
    if page is None:
        return each_of(await resolved(give()), what)
    if pure:
        return each_of(await in_turn(page, give), what)
    split = _Split(page, (*item.frame.path(), stage), what)
    known = split.known()
    if known.exact and (known.ended or known.parts):
        return split.again(known, give)
    return await split.first(known, give)


class _Split:
    """The split of one item in the journal."""

    def __init__(self, page: Page, path: tuple[str, ...], what: str) -> None:
        self._page = page
        self._path = path
        self._what = what

    def known(self) -> Known:
        """What earlier runs wrote. Parts of which nothing was made yet do not count."""
        found = cast("dict[str, object] | None", self._page.find(SPLIT, self._path))
        if found is not None and "parts" in found:
            return Known(0, cast("list[object]", found["parts"]), bool(found["exact"]), ended=True)
        lot, parts, exact = self._parts()
        if found is not None and found["lot"] == lot:
            count, failure = cast(int, found["count"]), read_failure(found["failure"])
            return Known(lot, parts[:count], exact, True, failure, bool(found["skipped"]))
        if not self._page.begun(self._path) and self._page.find(DECIDED, self._path) is None:
            return Known(lot + 1, [], True, ended=False)
        return Known(lot, parts, exact, ended=False)

    def _parts(self) -> tuple[int, list[object], bool]:
        lot, parts, exact = 0, list[object](), True
        while (found := self._page.find(PART, self._path, len(parts))) is not None:
            of_lot, was_exact, part = cast("tuple[int, bool, object]", found)
            if parts and of_lot != lot:
                break
            lot, exact = of_lot, exact and was_exact
            parts.append(part)
        return lot, parts, exact

    async def again(self, known: Known, give: Callable[[], object]) -> AsyncGenerator[object]:
        """The parts that are known, and what there is beyond them."""
        for part in known.parts:
            yield part
        if known.skipped:
            raise Skip
        if known.failure is not None:
            raise _raised(known.failure)
        if not known.ended:
            async with aclosing(await self.first(known, give)) as parts:
                skipped = 0
                async for part in parts:
                    skipped += 1
                    if skipped > len(known.parts):
                        yield part

    async def first(self, known: Known, give: Callable[[], object]) -> AsyncGenerator[object]:
        """Call the function, and write what it gives; what is known of it has to be the same."""
        result = await in_turn(self._page, give)
        if not isinstance(result, list | tuple):
            return self._written(known, each_of(result, self._what))
        parts = cast("list[object] | tuple[object, ...]", result)
        for number, part in enumerate(parts):
            self._check(known, number, self._json(part, number))
        self._check_end(known, len(parts))
        if not known.ended:
            self._page.write(SPLIT, self._path, {"exact": all(map(is_exact, parts)), "parts": list(parts)})
        return each_of(parts, self._what)

    async def _written(self, known: Known, fresh: AsyncGenerator[object]) -> AsyncGenerator[object]:
        count = 0
        async with aclosing(fresh):
            while True:
                try:
                    part = await anext(fresh)
                except StopAsyncIteration:
                    break
                except Exception as error:
                    if count and not is_bug(error) and not isinstance(error, CallsClosed):
                        self._end(known, count, error)
                    raise
                data = self._json(part, count)
                self._check(known, count, data)
                if count >= len(known.parts):
                    self._page.write(PART, self._path, [known.lot, is_exact(part), decode(data)], count)
                count += 1
                yield part
        self._check_end(known, count)
        self._end(known, count, None)

    def _end(self, known: Known, count: int, error: Exception | None) -> None:
        skipped = isinstance(error, Skip)
        failure = None if error is None or skipped else Failure.of(error, None)
        end = {"count": count, "failure": written_failure(failure), "lot": known.lot, "skipped": skipped}
        self._page.write(SPLIT, self._path, end)

    def _json(self, part: object, number: int) -> bytes:
        try:
            return encode(part)
        except NotJson as error:
            dot = "." if error.path and not error.path.startswith("[") else ""
            raise NotJson(f"{self._what}[{number}]{dot}{error.path}", error.reason) from None

    def _check(self, known: Known, number: int, data: bytes) -> None:
        if number < len(known.parts) and data != encode(known.parts[number]):
            before = f"{encode(known.parts[number]).decode():.60}"
            raise self._changed(f"part {number} is {data.decode():.60}, and was {before}")
        if known.ended and number >= len(known.parts):
            raise self._changed(f"there is a part {number}, and there were {len(known.parts)} parts")

    def _check_end(self, known: Known, count: int) -> None:
        if count < len(known.parts):
            raise self._changed(f"there are {count} parts, and there were {len(known.parts)} or more")

    def _changed(self, how: str) -> SplitChanged:
        text = f"{self._what} gave other parts than before the run was interrupted, and those were worked on: {how}"
        return SplitChanged(text)


def _raised(failure: Failure) -> ItemError:
    return ItemError(
        failure.message,
        type=failure.type,
        retryable=failure.retryable,
        http_status=failure.http_status,
        attempts=failure.attempts,
        request_id=failure.request_id,
    )
