"""Several files by what records say: each is opened with its first record, and a bounded number is open at once."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Final, TypeAlias

from pipeline.core.errors import OutputLocked, Problem, SinkError
from pipeline.core.exclusive import lock_names, unlock_names
from pipeline.core.record import Record
from pipeline.core.refusals import Mode, refuse, status, told
from pipeline.core.targets import Names
from stages.sinks.opening import open_output
from stages.sinks.output import Output, StreamOutput
from stages.sinks.packed import PackedOutput

OPEN: Final = 64  #: files that are open at once

AnyOutput: TypeAlias = "Output | PackedOutput | StreamOutput"


class One:
    """All records go to one output."""

    def __init__(self, path: str, mode: Mode, inputs: tuple[str, ...]) -> None:
        self._output = open_output(path, mode, inputs)

    async def of(self, record: Record | None) -> AnyOutput:
        return self._output

    def remove_if_empty(self) -> None:
        self._output.remove_if_empty()

    async def aclose(self) -> None:
        await self._output.aclose()


class Several:
    """What can change: which files have been opened, and which of them are open. All are locked as one for the length
    of the run, each of them while it is open."""

    def __init__(self, names: Names, mode: Mode, inputs: tuple[str, ...]) -> None:
        self._names = names
        self._mode: Mode = mode
        self._inputs = inputs
        self._begun: set[str] = set()
        self._open: OrderedDict[str, AnyOutput] = OrderedDict()
        try:
            for path in names.existing():
                found = status(path)
                if found is not None:
                    refuse(path, found, mode, inputs)
            if not os.path.isdir(names.base):
                raise FileNotFoundError
            self._lock = lock_names(names)
        except OutputLocked:
            raise
        except OSError as error:
            raise SinkError(told(names.path, error)) from None

    async def of(self, record: Record | None) -> AnyOutput:
        """The output that a record goes to. Raises `SinkError`."""
        if record is None:
            raise SinkError(f"{self._names.path}: text that is no record has no label and no status")
        target = self._names.target(record)
        found = self._open.get(target)
        if found is not None:
            self._open.move_to_end(target)
            return found
        if len(self._open) >= OPEN:
            await self._open.popitem(last=False)[1].aclose()
        path = self._names.file(target)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        mode: Mode = "append" if target in self._begun else self._mode
        output = self._open[target] = open_output(path, mode, self._inputs, follow=False)
        self._begun.add(target)
        return output

    def remove_if_empty(self) -> None:
        """None is made before there is a record for it."""

    async def aclose(self) -> None:
        """Close all. Raises the first error, when the others are closed."""
        failed: Exception | None = None
        for output in self._open.values():
            try:
                await output.aclose()
            except Exception as error:
                failed = failed or error
        self._open.clear()
        unlock_names(self._lock)
        self._lock = None
        if failed is not None:
            raise failed


def outputs(path: str, mode: Mode, inputs: tuple[str, ...], label: str | None) -> One | Several:
    """Open what `path` names. Raises `SinkError`."""
    names = Names(path, label)
    return Several(names, mode, inputs) if names.varies else One(path, mode, inputs)


def label_problems(path: str, label: str | None) -> list[Problem]:
    """What is wrong with a name that records decide."""
    if not Names(path).by_label or label is not None:
        return []
    return [Problem(None, "label", f"{path!r} needs a label", "label names the output of a stage that holds it")]
