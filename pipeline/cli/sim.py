"""`penstock sim`: a simulated model as an HTTP server, for any client of the OpenAI-compatible protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, cast, get_args

import typer

from pipeline.cli import flags
from pipeline.cli.exits import UsageError
from pipeline.cli.flags import choice, flag, repeated, several

if TYPE_CHECKING:
    from pipeline.cli.voice import Voice

WindowName = Literal["token_bucket", "sliding", "fixed", "second"]
ChargeName = Literal["used", "reserved"]

EPILOG = """\b
Ask it:
  penstock sim --port 8000 --requests-per-minute 500 --error 500=2%
  penstock run -m vllm/any --set models.default.base_url=http://127.0.0.1:8000/v1 -p 'Hi {{ prompt }}'
In a pipeline file:
  models: {local: {use: vllm/any, base_url: "http://127.0.0.1:8000/v1"}}
\b
  GET /ledger says what was asked and answered so far, POST /ledger begins it anew.
  Errors are statuses (429, 503), statuses with a code (429:insufficient_quota), or one of timeout, disconnect,
  disconnect_mid, stall, slow_drip, html, bad_json, truncated_stream, plain_stream, null_choices, empty_choices,
  inner_error, missing_usage, empty, refusal, filtered, length.
  stdout gets one line, the base URL; Ctrl-C or SIGTERM ends it with 0.
"""


class Server(Protocol):
    """What is installed under an entry point of the group `penstock.servers`."""

    def check(self, options: Mapping[str, object]) -> None:
        """Raise `DefinitionError` for options that cannot be, `PipelineError` if something is not installed."""
        ...

    def serve(
        self,
        options: Mapping[str, object],
        *,
        host: str,
        port: int,
        models: Sequence[str],
        ready: Callable[[int], None],
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """Answer requests until told to stop; `ready` is called with the port."""
        ...


def sim(
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Where to listen. Others than this machine's own are open to everybody."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, flag("--port", metavar="N", parser=flags.a_count, help="0 takes a free one and says which (8000).")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="In the list of models; any name is answered.  [repeatable]"),
    ] = None,
    seed: Annotated[
        int | None,
        flag(
            "--seed",
            metavar="N",
            parser=flags.a_count,
            help="Same seed, same answers of a new server (0).",
        ),
    ] = None,
    latency: Annotated[
        str | None,
        flag("--latency", metavar="TIME", help="1s, uniform:0.5s..2s, lognormal:1s,0.5 or exponential:1s (0)."),
    ] = None,
    tokens: Annotated[
        str | None, flag("--tokens", metavar="N", help="Length of answers: 200, uniform:50..400, lognormal:200,1.")
    ] = None,
    error: Annotated[
        list[str] | None,
        repeated("--error", metavar="FAULT=SHARE", help="Let attempts fail: 429=3%, timeout=0.5%, slow_drip=1%."),
    ] = None,
    requests_per_minute: Annotated[
        str | None, flag("--requests-per-minute", metavar="N", help="More are refused with 429 and retry-after.")
    ] = None,
    tokens_per_minute: Annotated[
        str | None, flag("--tokens-per-minute", metavar="N", help="As 200k; input and output.")
    ] = None,
    window: Annotated[
        WindowName | None,
        choice("--window", words=get_args(WindowName), help="How a minute is counted (token_bucket)."),
    ] = None,
    burst: Annotated[
        str | None,
        flag("--burst", metavar="TIME", help="What a token bucket holds, in time of its rate (60s)."),
    ] = None,
    charge: Annotated[
        ChargeName | None,
        choice("--charge", words=get_args(ChargeName), help="Tokens: used, or at least the answer's limit (used)."),
    ] = None,
    max_concurrency: Annotated[
        str | None, flag("--max-concurrency", metavar="N", help="More at once are refused with 429.")
    ] = None,
    access_log: Annotated[bool, flag("--access-log", help="A line on stderr for each answer.")] = False,
    quiet: Annotated[bool, flag("--quiet", "-q", help="Errors only on stderr.")] = False,
) -> None:
    """Serve a simulated model."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    voice = Voice(quiet=quiet)

    def command() -> int:
        if port is not None and port > 65_535:
            raise UsageError(f"--port {port} is no port; from 0 to 65535")
        options = _given(
            seed=seed,
            latency=latency,
            tokens=tokens,
            errors=_shares(several(error, "--error")),
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            window=window,
            burst=burst,
            charge=charge,
            max_concurrency=max_concurrency,
        )
        server = _checked(options)
        server.serve(
            options,
            host=host,
            port=8000 if port is None else port,
            models=model or ("default", "echo"),
            ready=lambda found: _introduce(voice, host, found, model),
            tell=voice.error if access_log else None,
        )
        return 0

    ended(command, voice, "penstock sim --help")


def _given(**options: object) -> Mapping[str, object]:
    return {name: value for name, value in options.items() if value is not None}


def _shares(texts: Sequence[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        fault, equals, share = text.rpartition("=")
        if not equals or not fault or not share:
            raise UsageError(f"--error {text!r} is not of the form fault=share, as 429=3%")
        if fault in found:
            raise UsageError(f"--error {fault} is given twice")
        found[fault] = share
    return found


def _checked(options: Mapping[str, object]) -> Server:
    """Return the installed server. Raises `UsageError` for options that it does not take, each by its flag."""
    from pipeline.cli.ends import server
    from pipeline.core.errors import DefinitionError

    found = cast(Server, server("sim"))
    try:
        found.check(options)
    except DefinitionError as error:
        raise UsageError("; ".join(_of_flag(each.option, each.message, each.hint) for each in error.problems)) from None
    return found


def _of_flag(option: str | None, message: str, hint: str | None) -> str:
    first, _, rest = (option or "").removeprefix("limits.").partition(".")
    name = {"errors": "error"}.get(first, first).replace("_", "-")
    return f"--{name}{f' {rest}' if rest else ''}: {message}" + (f" ({hint})" if hint else "")


def _introduce(voice: Voice, host: str, port: int, models: Sequence[str] | None) -> None:
    """Say where it is: on stdout for programs, on stderr for people."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    base_url = f"http://{f'[{reached}]' if ':' in reached else reached}:{port}/v1"
    typer.echo(base_url)
    name = models[0] if models else "default"
    voice.note(f"a simulated model is served at {base_url}; Ctrl-C ends it")
    asked = f"-m vllm/{name} --set models.default.base_url={base_url}"
    voice.note(f"  echo 'good morning' | penstock run {asked} -p 'Hi {{{{ prompt }}}}' -r")
    if not _is_loopback(host):
        voice.error(f"warning: {host} is no address of this machine alone: whoever reaches port {port} is answered")


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
