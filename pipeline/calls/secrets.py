"""What must not be shown, and texts without it: a server may quote the key it was sent in whatever it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Headers whose value is a secret by its name; those of other names may be ordinary words, which must stay readable.
#: Portkey is a gateway, whose name begins the names of all its headers.
_SECRET_NAME: Final = re.compile(r"auth|(?<!port)key|token|secret|cookie|passw|credential|signature", re.I)

SHOWN: Final = "[key]"
SHORTEST: Final = 4  #: characters of a secret that can be told from an ordinary text


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers whose name does not say that they are secret, by lower-case name."""
    return {name.lower(): value for name, value in headers.items() if not _SECRET_NAME.search(name)}


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets that requests of one model carry. Its own text names none of them."""

    values: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(cls, key: str | None, headers: Mapping[str, str]) -> Secrets:
        """The key, and the values of headers whose name says that they are secret, with and without their scheme."""
        found = [key] if key else []
        for name, value in headers.items():
            if _SECRET_NAME.search(name):
                found += [value, value.rpartition(" ")[2]]
        longest_first = sorted({each for each in found if len(each) >= SHORTEST}, key=len, reverse=True)
        return cls(tuple(longest_first))

    def clean(self, text: str) -> str:
        """Return `text` with `[key]` where a secret stands in it; everything else as it is."""
        for value in self.values:
            if value in text:
                text = text.replace(value, SHOWN)
        return text

    def line(self, text: str, limit: int = 300) -> str:
        """Return a server's words as one line that is safe to show, however the server masked a secret in it.

        Providers quote the key they refused, often with its last characters in clear; so a word that has stars in it,
        or shares its start or end with a secret, goes too.
        """
        line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        line = re.sub(r"\S*\*{2,}\S*", SHOWN, line)
        for value in self.values:
            ends = "|".join(re.escape(end) for end in {value, value[:8], value[-4:]} if len(end) >= SHORTEST)
            line = re.sub(rf"[\w.*-]*(?:{ends})[\w.*-]*", SHOWN, line)
        return line if len(line) <= limit else line[:limit] + "…"


class Veil:
    """Cleans a text that comes in pieces. What can change: the end of it that may be the beginning of a secret."""

    __slots__ = ("_held", "_secrets")

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._held = ""

    def through(self, piece: str) -> str:
        """Return what can be shown now, of this piece and of what was held back."""
        text = self._secrets.clean(self._held + piece)
        most = max((_overlap(text, value) for value in self._secrets.values), default=0)
        self._held = text[len(text) - most :]
        return text[: len(text) - most]

    def rest(self) -> str:
        """Return what is held back when the text has ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, value: str) -> int:
    """How many characters at the end of `text` are the beginning of `value`."""
    for size in range(min(len(value) - 1, len(text)), 0, -1):
        if text.endswith(value[:size]):
            return size
    return 0
