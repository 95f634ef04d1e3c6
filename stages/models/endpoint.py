"""The address of a model server, checked before anything is sent to it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.core.errors import DefinitionError, Problem


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Scheme and host of a base URL. The host is what a key is bound to."""

    scheme: str
    host: str  #: lower case, without port and brackets

    @classmethod
    def of(cls, base_url: str, *, keyed: bool) -> Endpoint:
        """Read a base URL. Raises `DefinitionError` for what is no plain http or https address, and for a key that
        would cross a network in clear."""
        try:
            parts = urlsplit(base_url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise _wrong(base_url, str(error), "as https://api.example.com/v1") from error
        if parts.scheme not in ("http", "https") or not host or not host.isascii():
            raise _wrong(base_url, "not an http or https address", "as https://api.example.com/v1")
        if parts.username is not None or parts.password is not None:
            shown = base_url.replace(parts.netloc, parts.netloc.rpartition("@")[2])
            raise _wrong(shown, "holds a user or a password", "put the key into a variable and name it in api_key_env")
        if parts.query or parts.fragment:
            raise _wrong(base_url, "has a query or a fragment", "end it with the path, as /v1")
        if keyed and parts.scheme == "http" and not is_loopback(host):
            raise _wrong(base_url, "would send the key in clear", "use https, or this machine's own address")
        return cls(parts.scheme, host)


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine, by its name or number; nothing is looked up."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _wrong(base_url: str, message: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, "base_url", f"{base_url!r}: {message}", hint))
