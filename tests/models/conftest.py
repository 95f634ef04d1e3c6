from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.chat import ChatServer, chat_server


@pytest.fixture(scope="module")
def running_server() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture
def server(running_server: ChatServer) -> ChatServer:
    running_server.log.clear()
    running_server.scripts.clear()
    return running_server
