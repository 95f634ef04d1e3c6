"""The simulated model over HTTP on a free loopback port, in a thread until the block ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager

from stages.models import SimulatedModel
from stages.models.simulated_http import http_server


@contextmanager
def simulated_http(definition: SimulatedModel) -> Generator[str]:
    """Give the address of a server, without a path."""
    listener, ready = socket.create_server(("127.0.0.1", 0)), threading.Event()
    server = http_server(definition, ["default"], ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="simulated-http")
    thread.start()
    try:
        assert ready.wait(15), "the simulated server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()
        assert not thread.is_alive(), "the simulated server did not stop"
