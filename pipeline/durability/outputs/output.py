"""What a run writes of its lines, and where: a frozen definition. The files are made of the journal, see `files`."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from pipeline.core.errors import DefinitionError, JournalError, Problem, SinkError
from pipeline.core.refusals import MODES, Mode, refuse, refuse_input, status, told
from pipeline.core.targets import Names
from pipeline.durability.disk.schema import Value
from pipeline.durability.disk.store import Store

OUTPUT: Final = "output"  #: what projections are called: this, or this and a target
ERRORS: Final = "errors"

_ALL: Final = "SELECT number, data FROM line WHERE number > ? ORDER BY number"
_SOME: Final = "SELECT number, data FROM line WHERE number > ? AND target = ? ORDER BY number"
_DEAD: Final = "SELECT number, dead FROM line WHERE number > ? AND dead IS NOT NULL ORDER BY number"


@dataclass(frozen=True, slots=True)
class Output:
    """A regular file, or several: in their name `{label}` stands for the label that the last route at the top level of
    the pipeline gave a record (`none` if it gave none), `{status}` for the record's status.

    A name that ends in `.gz` is compressed. `mode` create refuses a file that exists. `inputs` are paths that it must
    not be. Which bytes a record has is decided by the journal.
    """

    path: str | os.PathLike[str]
    mode: Mode = "create"
    inputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", os.fspath(self.path))
        if self.mode not in MODES:
            hint = f"modes are {', '.join(MODES)}"
            raise DefinitionError(Problem(None, "mode", f"there is no mode {self.mode!r}", hint))


class Line(NamedTuple):
    """What a line of the journal is in one file."""

    number: int
    data: bytes


class Outlet(NamedTuple):
    """One output, as a run has it."""

    name: str  #: `OUTPUT` or `ERRORS`
    names: Names
    mode: Mode
    inputs: tuple[str, ...]
    private: bool = False  #: a file of the run's own, for its owner only

    def file(self, target: str) -> str:
        """The path of one of its files, links of the user's followed."""
        if self.private:
            return os.path.abspath(self.names.path)
        if self.names.varies:
            return os.path.join(os.path.realpath(self.names.base), target)
        return os.path.realpath(self.names.path)

    def projection(self, target: str) -> str:
        """What the journal calls one of its files."""
        return f"{self.name}/{target}" if target else self.name

    def lines(self, store: Store, target: str, after: int) -> Generator[Line]:
        """What one of its files consists of, beyond line `after`."""
        query = _DEAD if self.name == ERRORS else _SOME if target else _ALL
        values: tuple[Value, ...] = (after, target) if query == _SOME else (after,)
        for number, data in store.read(query, values):
            yield Line(cast(int, number), cast(bytes, data))

    # -- before anything is begun -------------------------------------------------------------------------------

    def refuse(self, *, ours: bool) -> None:
        """Raise `SinkError` for what would destroy something or cannot be written. What the journal has written already
        is `ours`."""
        path = self.names.path
        try:
            for each in self.names.existing():
                self._refuse_one(each, ours=ours)
            if not ours:
                self._try_out()
        except OSError as error:
            raise SinkError(told(path, error)) from None

    def _refuse_one(self, path: str, *, ours: bool) -> None:
        found = status(path)
        if found is None:  # a link that leads nowhere
            return
        if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
            raise SinkError(f"{path}: is no regular file, so it cannot be made of a journal; write to it with a sink")
        refuse(path, found, "append" if ours else self.mode, self.inputs)

    def _try_out(self) -> None:
        """Have something on the disk where the files will be, and take it away again."""
        if not self.names.varies and (found := status(self.names.path)) is not None:
            if not os.access(self.names.path, os.W_OK):
                raise PermissionError
            refuse_input(self.names.path, found, self.inputs)
            return
        directory = os.path.dirname(self.file("x" if self.names.varies else ""))
        with tempfile.TemporaryFile(dir=directory, prefix=".penstock-") as file:
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())

    def refuse_file(self, path: str) -> None:
        """The same for a file of which nobody knew before its first record. Raises `OSError`."""
        found = status(path)
        if found is not None:
            try:
                self._refuse_one(path, ours=False)
            except SinkError as error:
                raise OSError(errno.EEXIST, str(error).removeprefix(f"{path}: "), path) from None


def outlet(output: Output, name: str, label: str | None) -> Outlet:
    """An output within a run, `label` being the output that holds labels. Raises `DefinitionError`."""
    names = Names(cast(str, output.path), label, plain=name == ERRORS)
    if names.by_label and label is None:
        hint = "the label is that of the last route at the top level; there is none"
        raise DefinitionError(Problem(None, "output", f"no record has a label for {names.path!r}", hint))
    return Outlet(name, names, output.mode, output.inputs)


def agreed(store: Store, outlet: Outlet | None) -> str | None:
    """Hold a journal's output to what it was, and return what the journal has to note. Raises `JournalError`."""
    (kept,) = [cast(str, value) for (value,) in store.read("SELECT value FROM meta WHERE key = 'output'")] or [None]
    if outlet is None:
        if kept is not None:
            raise JournalError(f"{store.path}: its records go to {kept}, which has to be given again as its output")
        return None
    path = os.path.abspath(outlet.names.path)
    if kept is not None and kept != path:
        raise JournalError(f"{store.path}: its records go to {kept}, not to {path}; nothing was called")
    if kept is None and outlet.names.varies and any(store.read("SELECT 1 FROM line LIMIT 1")):
        raise JournalError(f"{store.path}: its records were not sorted into files, so {outlet.names.path} lacks some")
    return path if kept is None else None
