"""The contestants of `calls.py` that need no environment of their own; one process each.

All but the embedded one collect garbage as seldom as the command does, so that this is no part of the comparison.

python calling_contestants.py NAME '{"base_url": ..., "in_flight": 500, "calls": 1500}'
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import anyio
from calling import PROMPT, timed, work

from pipeline.cli.collector import seldom_collected


def without(*packages: str) -> None:
    """Make packages look as if they were not installed."""
    for package in packages:
        assert package not in sys.modules
        sys.modules[package] = None  # type: ignore[assignment]


async def bare_aiohttp(base_url: str, in_flight: int, calls: int) -> int:
    """What is there to be had: a session, bytes by orjson, nothing checked."""
    import aiohttp
    import orjson
    from calling import workers

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        url = base_url + "/chat/completions"

        async def call(prompt: str) -> object:
            body = orjson.dumps({"model": "quick", "messages": [{"role": "user", "content": prompt}]})
            headers = {"content-type": "application/json", "authorization": "Bearer none"}
            async with session.post(url, data=body, headers=headers) as response:
                answer = orjson.loads(await response.read())
            return answer["choices"][0]["message"]["content"]

        return await workers(call, in_flight, calls)


async def sdk(base_url: str, in_flight: int, calls: int) -> int:
    """The SDK's default client, workers in a task group."""
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        return await _in_task_group(client, in_flight, calls)


async def sdk_aiohttp(base_url: str, in_flight: int, calls: int) -> int:
    import openai

    http = openai.DefaultAioHttpClient()
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, http_client=http) as client:
        return await _in_task_group(client, in_flight, calls)


async def _in_task_group(client: Any, in_flight: int, calls: int) -> int:
    prompts = iter([PROMPT.format(number) for number in range(calls)])
    answered = 0

    async def worker() -> None:
        nonlocal answered
        for prompt in prompts:
            reply = await client.chat.completions.create(model="quick", messages=[{"role": "user", "content": prompt}])
            answered += reply.choices[0].message.content is not None

    async with anyio.create_task_group() as tg:
        for _ in range(in_flight):
            tg.start_soon(worker)
    return answered


async def penstock(base_url: str, in_flight: int, calls: int) -> int:
    """One agent with quota, retries and statistics, records counted as they come; in a process like the command's."""
    from pipeline import Pipeline
    from stages import agent
    from stages.models import resolve

    model = resolve(
        "ollama/quick",
        base_url=base_url,
        requests_per_minute=60_000_000,
        tokens_per_minute=60_000_000_000,
        max_concurrency=in_flight,
    )
    pipe = Pipeline(agent("answer", model=model, concurrency=in_flight), max_in_flight=in_flight)
    answered = 0
    async with pipe.open([PROMPT.format(number) for number in range(calls)]) as run:
        async for record in run.results:
            answered += record.status == "ok"
        run.statistics()
    return answered


async def embedded(base_url: str, in_flight: int, calls: int) -> int:
    """The same in an application, which collects garbage as often as Python does by itself."""
    return await penstock(base_url, in_flight, calls)


Contestant = Callable[[str, int, int], Awaitable[int]]
#: name: (run, backend, with what is in the `fast` extra)
CONTESTANTS: dict[str, tuple[Contestant, str, bool]] = {
    "bare aiohttp": (bare_aiohttp, "asyncio", False),
    "bare aiohttp on uvloop": (bare_aiohttp, "asyncio", True),
    "SDK default": (sdk, "asyncio", False),
    "SDK default on trio": (sdk, "trio", False),
    "SDK on aiohttp": (sdk_aiohttp, "asyncio", False),
    "Penstock, fast": (penstock, "asyncio", True),
    "Penstock, fast, embedded": (embedded, "asyncio", True),
    "Penstock": (penstock, "asyncio", False),
    "Penstock on trio": (penstock, "trio", False),
}


def main() -> None:
    run, backend, fast = CONTESTANTS[sys.argv[1]]
    if not fast:
        without("uvloop")
        if run in (penstock, embedded):
            without("aiohttp")
    needs = ["uvloop"] * fast + ["aiohttp"] * (run in (bare_aiohttp, sdk_aiohttp) or fast)
    for package in needs:
        if find_spec(package) is None:
            raise SystemExit(f"{package} is not installed (it is in the extra `fast`)")
    options = {"use_uvloop": True} if fast else {}
    package = {penstock: "penstock", embedded: "penstock", bare_aiohttp: "aiohttp"}.get(run, "openai")
    with nullcontext() if run is embedded else seldom_collected():
        print(json.dumps(anyio.run(timed, run, *work(), package, backend=backend, backend_options=options)))


if __name__ == "__main__":
    main()
