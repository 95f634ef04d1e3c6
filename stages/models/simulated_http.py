"""Serves the simulated model over HTTP until it is told to stop; what `penstock sim` runs."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, cast

import anyio

from pipeline.core.errors import PipelineError
from stages.models.simulated import SimulatedModel
from stages.models.simulated_limits import ServerLimits

if TYPE_CHECKING:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from stages.models.simulated_app import Tell

BACKLOG: Final = 4096  #: connections that wait to be accepted
LEAVE: Final = 1  #: seconds that answers in flight have when the server is told to stop


@dataclass(frozen=True, slots=True)
class SimulatedHttp:
    """What the command finds under the entry point `sim` of the group `penstock.servers`."""

    def check(self, options: Mapping[str, object]) -> None:
        """Raise `DefinitionError` for options that cannot be, or `PipelineError` when a package is missing."""
        _definition(options)
        missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
        if missing:
            raise PipelineError(f"penstock sim needs {' and '.join(missing)}: pip install 'penstock[sim]'")

    def serve(
        self,
        options: Mapping[str, object],
        *,
        host: str,
        port: int,
        models: Sequence[str],
        ready: Callable[[int], None],
        tell: Tell | None = None,
    ) -> None:
        """Answer requests until SIGINT or SIGTERM. `ready` is called with the port once connections are taken.

        `options` are fields of `SimulatedModel` and of `ServerLimits`, `models` the names that the list of models
        shows. Raises `PipelineError` when it cannot listen.
        """
        definition = _definition(options)
        listener = _listener(host, port)
        with listener:
            serving = partial(_serve, definition, listener, models, ready, tell)
            faster = {"use_uvloop": find_spec("uvloop") is not None}
            anyio.run(serving, backend="asyncio", backend_options=faster)  # the one backend of uvicorn


SERVER: Final = SimulatedHttp()

_OF_LIMITS: Final = tuple(each for each in ServerLimits.__dataclass_fields__)


def _definition(options: Mapping[str, object]) -> SimulatedModel:
    limits = {name: value for name, value in options.items() if name in _OF_LIMITS}
    own = {name: value for name, value in options.items() if name not in _OF_LIMITS}
    return SimulatedModel(limits=limits, **cast("dict[str, Any]", own))


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        why = (os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)).lower()
        raise PipelineError(f"cannot listen on {host}:{port}: {why}; --port 0 takes a free port") from error


async def _serve(
    definition: SimulatedModel,
    listener: socket.socket,
    models: Sequence[str],
    ready: Callable[[int], None],
    tell: Tell | None,
) -> None:
    serving = http_server(definition, models, lambda: ready(listener.getsockname()[1]), tell)
    async with _stopped_by_signals(serving):
        await serving.serve([listener])


def http_server(
    definition: SimulatedModel, models: Sequence[str], ready: Callable[[], None], tell: Tell | None = None
) -> uvicorn.Server:
    """Return a server that catches no signals; `ready` is called once it takes connections."""
    import uvicorn

    from stages.models.simulated_app import simulated_app
    from stages.models.simulated_gate import Gate
    from stages.models.simulated_service import SimulatedServer

    limits = cast("ServerLimits | None", definition.limits) or ServerLimits()
    config = uvicorn.Config(
        simulated_app(SimulatedServer(definition, Gate(limits)), models, tell),
        http=_protocol(),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what it would say is about faults that were asked for
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=LEAVE,
    )

    class Serving(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Generator[None]:
            yield  # uvicorn's own would end the process with the signal, and not with a code

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    return Serving(config)


@asynccontextmanager
async def _stopped_by_signals(serving: uvicorn.Server) -> AsyncGenerator[None]:
    """The first signal lets answers in flight go on for `LEAVE` seconds, the second stops at once."""

    async def listen(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for _ in signals:
                serving.force_exit = serving.should_exit
                serving.should_exit = True

    async with anyio.create_task_group() as tg:
        await tg.start(listen)
        yield
        tg.cancel_scope.cancel()


def _protocol() -> type[H11Protocol]:
    """Return the protocol of uvicorn that lets the application break its connection, which ASGI has no word for."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    from stages.models.simulated_app import BREAK

    class Breakable(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, BREAK: transport.abort}

    return Breakable
