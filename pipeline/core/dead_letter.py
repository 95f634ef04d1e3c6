"""The long form of a record that failed: why, where, what was tried, what it cost, and the record as it came in.

Of a traceback only places are told, in the user's own code: texts and values in it may be secrets.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import replace

from pipeline.core.codec import encode_line
from pipeline.core.errors import ItemError
from pipeline.core.places import is_users
from pipeline.core.record import Record, usage_json

MOST_CAUSES = 8  #: errors of one chain that are told


def dead_letter(
    record: Record, *, seq: int | None = None, attempts: Iterable[Mapping[str, object]] | None = None
) -> bytes:
    """The dead letter of a record that failed, as a line. `seq` is the number of its root in a journal, `attempts` what
    that has of its calls; without one there is only their count."""
    try:
        return _line(record, seq, attempts)
    except ItemError:  # something in it has no JSON form; the record itself was written without it
        return _line(replace(record, input=None, outputs={}), seq, attempts)


def _line(record: Record, seq: int | None, attempts: Iterable[Mapping[str, object]] | None) -> bytes:
    error = record.error
    letter: dict[str, object] = {} if seq is None else {"seq": seq}
    letter |= {
        "id": record.id,
        "index": record.index,
        "reason": error.type if error else None,
        "stage": error.stage if error else None,
        "http_status": error.http_status if error else None,
        "request_id": error.request_id if error else None,
        "message": error.message if error else None,
        "traceback": places(error.cause) if error and error.cause else None,
        "attempts": (error.attempts if error else None) if attempts is None else list(attempts),
        "usage": usage_json(record.usage),
        "cost": {"usd": record.cost.usd, "source": record.cost.source} if record.cost else None,
        "record": record.input,
        "outputs": dict(record.outputs),
    }
    if record.parent is not None:
        letter["parent"] = record.parent
    if record.inputs:
        letter["inputs"] = list(record.inputs)
    return encode_line(letter)


def places(error: BaseException) -> list[dict[str, object]] | None:
    """Where in the user's code an error was raised, and those that it came of, the last one first; None if no code of
    the user's was at work."""
    found: list[dict[str, object]] = []
    step: BaseException | None = error
    while step is not None and len(found) < MOST_CAUSES:
        where = [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in _frames(step)]
        found.append({"type": type(step).__name__, "at": where})
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return found if any(each["at"] for each in found) else None


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of the user's code, the outermost first."""
    found: list[traceback.FrameSummary] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        code = frame.f_code
        if is_users(module, code.co_filename) and not code.co_filename.startswith(sys.prefix):
            found.append(traceback.FrameSummary(code.co_filename, line, code.co_name, lookup_line=False))
    return found
