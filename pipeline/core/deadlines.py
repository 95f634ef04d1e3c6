"""One timer for many equal delays: the first that was started is the first that ends.

With one delay for all, insertion order is deadline order, so one task that sleeps until the oldest deadline serves any
number of entries, and nothing is polled.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

import anyio

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Calls `expire(key)` when `delay` seconds have passed since `start(key)`, unless `stop(key)` came first."""

    def __init__(self, delay: float, expire: Callable[[K], None]) -> None:
        self.delay = delay
        self._expire = expire
        self._due: dict[K, float] = {}
        self._started = anyio.Event()
        self._scope = anyio.CancelScope()

    def __len__(self) -> int:
        return len(self._due)

    def start(self, key: K) -> float:
        """Start the clock of `key` and return its deadline; a running one is left alone."""
        if key not in self._due:
            self._due[key] = anyio.current_time() + self.delay
            self._started.set()
        return self._due[key]

    def stop(self, key: K) -> None:
        """Forget `key`, if it runs."""
        self._due.pop(key, None)

    def close(self) -> None:
        """End `run`."""
        self._scope.cancel()

    async def run(self) -> None:
        """Wait for deadlines until `close`. The one task of this timer."""
        with self._scope:
            while True:
                if not self._due:
                    self._started = anyio.Event()
                    await self._started.wait()
                await anyio.sleep_until(next(iter(self._due.values()), 0.0))
                self._sweep(anyio.current_time())

    def _sweep(self, now: float) -> None:
        while self._due:
            key, due = next(iter(self._due.items()))
            if due > now:
                return
            del self._due[key]
            self._expire(key)
