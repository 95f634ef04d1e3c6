"""A run whose first calls are all refused in the same way is wrong as a whole, and is stopped before it costs more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError

CALLS: Final = 10
ITEMS: Final = 5  #: of different items, at least; many calls of one prompt say nothing of the others

#: what a wrong model, option or address looks like; not what an item may bring about, such as a prompt that is too long
_WRONG: Final = frozenset(
    {"bad_request", "not_found", "not_json", "truncated_json", "no_choices", "bad_envelope", "bad_status"}
    | {"bad_encoding", "server_error"}
)


class FirstCalls:
    """How the first calls of one open model went. One that goes otherwise ends the watch for good.

    After it has stopped a run it begins anew: a model that others fall back to is open for several runs.
    """

    def __init__(self) -> None:
        self._watching = True
        self._begin()

    def _begin(self) -> None:
        self._type: str | None = None
        self._calls = 0
        self._items: set[str] = set()

    def answered(self) -> None:
        """A call was answered, so nothing is wrong as a whole."""
        self._watching = False

    def failed(self, item_id: str, error: CallError) -> bool:
        """A call failed for good; return whether all have, and all alike."""
        if not self._watching or error.fault in ("stop", "park"):
            return False
        if error.type not in _WRONG or (error.type == "server_error" and error.fault != "fail"):
            self._watching = error.fault != "fail"
            return False
        if self._type not in (None, error.type):
            self._watching = False
            return False
        self._type = error.type
        self._calls += 1
        self._items.add(item_id)
        if self._calls < CALLS or len(self._items) < ITEMS:
            return False
        self._begin()
        return True


@dataclass(frozen=True, slots=True)
class Detector:
    """Makes the failure of a call the end of the run when `first` says that all calls fail like this one."""

    first: FirstCalls

    def __call__(self, call: Call, /) -> Call:
        async def detected(request: Request) -> Reply:
            try:
                reply = await call(request)
            except CallError as error:
                if self.first.failed(request.visit.item_id, error):
                    error.stop_run(f"all of the first {CALLS} calls failed alike")
                raise
            self.first.answered()
            return reply

        return detected
