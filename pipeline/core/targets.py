"""Names of output files that a record decides: `{label}` and `{status}` in them.

What a label becomes in a name is made so that data can never lead anywhere else: whatever is no letter, digit, `-`, `_`
or inner `.` is written as `%` and its bytes in hexadecimal, so different labels are different files.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from pipeline.core.record import Record
from pipeline.core.stage import Chain, Stage

NONE: Final = "none"  #: the label of a record that has none
LONGEST: Final = 100  #: characters of a label in a name; longer ones are cut, with a hash of the whole

_COULD: Final = {"label": "[^/]+", "status": "(?:ok|partial|failed)"}
_PLACE: Final = re.compile(r"\{(label|status)\}")


@dataclass(frozen=True, slots=True)
class Names:
    """The files of an output. `label` names the stage output that holds a record's label. A `plain` name is one file,
    whatever it looks like."""

    path: str
    label: str | None = None
    plain: bool = False

    @property
    def varies(self) -> bool:
        """Whether there can be several files."""
        return not self.plain and _PLACE.search(self.path) is not None

    @property
    def by_label(self) -> bool:
        return self.varies and "{label}" in self.path

    @property
    def base(self) -> str:
        """The directory that all files are in."""
        return self._fixed or "."

    @property
    def _fixed(self) -> str:
        return os.path.dirname(_PLACE.split(self.path, maxsplit=1)[0] if self.varies else self.path)

    def target(self, record: Record) -> str:
        """Which of the files a record goes to, from `base`; empty if there is only one."""
        if not self.varies:
            return ""
        fields = {"label": label_of(record, self.label), "status": record.status}
        whole = _PLACE.sub(lambda found: fields[found[1]], self.path)
        return whole[len(self._fixed) :].lstrip("/")

    def file(self, target: str) -> str:
        """The path of one of the files."""
        return os.path.join(self.base, target) if target else self.path

    def existing(self) -> list[str]:
        """The paths there are that a record could go to."""
        if not self.varies:
            return [self.path] if os.path.lexists(self.path) else []
        parts = _PLACE.split(self.path)  # every other one is the name of a place
        patterns = (_COULD[part] if number % 2 else re.escape(part) for number, part in enumerate(parts))
        could = re.compile("".join(patterns), re.DOTALL)
        found = glob.glob("*".join(glob.escape(part) for part in parts[::2]))
        return sorted(path for path in found if could.fullmatch(path))


def label_key(stage: Stage) -> str | None:
    """The output that holds the label which the last route at the top level gives; None without a route."""
    stages = stage.stages if isinstance(stage, Chain) else (stage,)
    keys = [key for each in stages if isinstance(key := getattr(each, "label_key", None), str)]
    return keys[-1] if keys else None


def label_of(record: Record, key: str | None) -> str:
    """The label of a record as a part of a file's name."""
    outputs: Mapping[str, object] = record.outputs
    found = None if key is None else outputs.get(key)
    return NONE if found is None else safe(str(found))


def safe(label: str) -> str:
    """A label as a part of a file's name that is no path and no hidden file."""
    if not label:
        return "%"
    text = "".join(_safe(letter) for letter in label)
    if text.startswith("."):
        text = "%2E" + text[1:]
    if len(text.encode()) > LONGEST:
        said = blake2b(label.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        text = text.encode()[: LONGEST - 17].decode("utf-8", "ignore") + "~" + said
    return text


def _safe(letter: str) -> str:
    if letter.isalnum() or letter in "-_.":
        return letter
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))
