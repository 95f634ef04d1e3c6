"""Agents of other libraries: the snippets of the README run as they stand there, without keys and without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NO_NETWORK = """
import socket

def refuse(*args): raise OSError("the snippet opened a connection")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""


def snippet(library: str) -> str:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(rf"```python\n(# {library}\n.*?)```", readme, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


#: what Python itself may need to start; no key and no setting of a library
ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}


def run(code: str) -> str:
    """Run `code` and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", NO_NETWORK + code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=ENVIRONMENT,
        timeout=120,
    )
    assert done.stderr == ""
    return done.stdout


def on(backend: str, code: str) -> str:
    """`code` with its last line changed to run on `backend`."""
    changed = re.sub(r"anyio\.run\(main.*\)", f"anyio.run(main, backend={backend!r})", code)
    assert f"main, backend={backend!r}" in changed
    return changed


def blocking(code: str) -> str:
    """The pydantic-ai snippet with its blocking call."""
    changed = code.replace("async def poem", "def poem").replace("await poet.run(", "poet.run_sync(")
    assert changed != code
    return changed


def test_an_agent_of_pydantic_ai_is_an_agent() -> None:
    assert run(snippet("pydantic-ai")) == "ok Grey sea, green hills 1\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_blocking_call_of_pydantic_ai_serves_on_both_backends(backend: str) -> None:
    assert run(on(backend, blocking(snippet("pydantic-ai")))) == "ok Grey sea, green hills 1\n"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_runnable_of_langchain_is_an_agent_on_both_backends(backend: str) -> None:
    assert run(on(backend, snippet("LangChain"))) == "ok By the Sea\n"


def test_the_async_call_of_langchain_serves_on_asyncio() -> None:
    code = on("asyncio", snippet("LangChain"))
    changed = code.replace("def title", "async def title").replace("return chain.invoke", "return await chain.ainvoke")
    assert "async def title" in changed
    assert "await chain.ainvoke" in changed
    assert run(changed) == "ok By the Sea\n"
