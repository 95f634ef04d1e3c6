"""The task that turns a source into roots: a credit first, then the record, then the hand-over.

Only this task ever asks the source for its next record, from the first to the closing. A drain cancels it while it
waits for the source, never during a hand-over.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing
from time import monotonic
from typing import TypeAlias, cast

from anyio import CancelScope, create_task_group
from anyio.lowlevel import checkpoint

from pipeline.core.errors import SourceError
from pipeline.core.inputs import input_of_fields
from pipeline.core.iteration import close
from pipeline.core.machine import Machine
from pipeline.core.ports import Source
from pipeline.core.record import Input
from pipeline.core.streams import BURST, BURST_SECONDS
from pipeline.core.threshold import Threshold, runs_foreign_code

SourceLike: TypeAlias = "Source | Iterable[object] | AsyncIterable[object]"


def as_input(value: object) -> Input:
    """Read what code gives as a record: a prompt, fields, an `Input`, or any object for the first stage."""
    if isinstance(value, Input):
        return value
    if isinstance(value, str):
        return Input(value, prompt=value)
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, object]", value)
        return input_of_fields(fields, id=_id_of(fields))
    return Input(value)


def _id_of(fields: Mapping[str, object]) -> str | None:
    """The id that a record brings: its `id`, or else its `custom_id`."""
    given = fields.get("id", fields.get("custom_id"))
    return str(given) if isinstance(given, str | int) and not isinstance(given, bool) else None


async def feed(machine: Machine, source: object) -> None:
    """Admit the records of `source` until it ends or the run drains. What it raises ends the run, once all has
    settled."""
    try:
        if machine.journal is not None and runs_foreign_code(machine.pipeline.stage):
            async with create_task_group() as tg:
                machine.threshold = Threshold(machine)
                tg.start_soon(machine.threshold.run)
                try:
                    await _feed(machine, source)
                finally:
                    machine.threshold.close()
        else:
            await _feed(machine, source)
    finally:
        if machine.threshold is not None:
            machine.threshold.clear()
        machine.entrance_done()
    machine.source_done()


async def _feed(machine: Machine, source: object) -> None:
    try:
        with CancelScope() as scope:
            await _feed_unfinished(machine, scope)
            if machine.journal is not None and not machine.journal.takes_more:
                source = ()
            if isinstance(source, str | bytes | Mapping):
                raise SourceError("a source is an iterable of prompts, not one prompt or record; put it in a list")
            if isinstance(source, Iterable):
                values = iter(cast("Iterable[object]", source))
                try:
                    await _feed_now(machine, values, scope)
                finally:
                    if isinstance(values, Generator):
                        values.close()
            elif isinstance(source, Source):  # before its iteration, if it has both
                async with source.open() as records:
                    if machine.journal is not None:
                        machine.journal.follow(records)
                    await _feed_later(machine, records, scope)
            elif isinstance(source, AsyncIterable):
                records = aiter(cast("AsyncIterable[object]", source))
                try:
                    await _feed_later(machine, records, scope)
                finally:
                    await close(records)
            else:
                what = type(source).__name__
                raise SourceError(f"a source is an iterable or async iterable of prompts, or a Source; got {what}")
    except Exception as error:
        machine.source_failed(error)


async def _feed_now(machine: Machine, records: Iterator[object], scope: CancelScope) -> None:
    """Feed from a plain iterator, with a checkpoint every `BURST` records or `BURST_SECONDS`."""
    window = machine.window
    burst, since = 0, monotonic()
    while not machine.draining:
        burst += 1
        if burst >= BURST or monotonic() - since > BURST_SECONDS:
            await checkpoint()
            burst, since = 0, monotonic()
        if not window.free:
            await _credit(machine, scope)
            if machine.draining:
                return
        try:
            value = next(records)
        except StopIteration:
            window.pass_on()
            return
        await _admit(machine, as_input(value))


async def _feed_later(machine: Machine, records: AsyncIterator[object], scope: CancelScope) -> None:
    """Feed from an async iterator. While it waits for a record it holds no credit that a submit could use."""
    window = machine.window
    burst, since = 0, monotonic()
    while not machine.draining:
        burst += 1
        if burst >= BURST or monotonic() - since > BURST_SECONDS:
            await checkpoint()
            burst, since = 0, monotonic()
        if not window.free:
            await _credit(machine, scope)
            window.pass_on()
        machine.feed_scope = scope
        try:
            value = await anext(records)
        except StopAsyncIteration:
            return
        finally:
            machine.feed_scope = None
        record = as_input(value)
        if not window.free:  # a submit took the credit while the source was slow
            await _credit(machine, scope)
            if machine.draining:
                return
        await _admit(machine, record)


async def _feed_unfinished(machine: Machine, scope: CancelScope) -> None:
    """Feed what earlier runs with this journal have begun."""
    if machine.journal is None:
        return
    async with aclosing(machine.journal.unfinished()) as roots:
        while not machine.draining:
            if not machine.window.free:
                await _credit(machine, scope)
            admitted = await anext(roots, None)
            if admitted is None:
                machine.window.pass_on()
                return
            if not machine.draining:
                await machine.enter(machine.window.admit(*admitted))


async def _admit(machine: Machine, record: Input) -> None:
    """Let a record of the source in, unless an earlier run has."""
    window, journal = machine.window, machine.journal
    if journal is None:
        await machine.enter(window.admit(record))
        return
    place = machine.place
    machine.place += 1
    admitted = await journal.admit(record, place)
    if admitted is None:
        machine.skipped += 1
        window.pass_on()
    elif machine.threshold is not None:
        machine.threshold.add(window.admit(*admitted))
    else:
        await machine.enter(window.admit(*admitted))


async def _credit(machine: Machine, scope: CancelScope) -> None:
    """Wait for the right to a credit. A drain ends the feeder here."""
    machine.feed_scope = scope
    try:
        await machine.window.wait_free()
    finally:
        machine.feed_scope = None
