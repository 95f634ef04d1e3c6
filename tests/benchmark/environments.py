"""A virtual environment for each peer, made on demand: no peer's dependencies decide what another one runs with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PEERS = Path(__file__).parent / "peers"
INSTALL_SECONDS = 600.0
RUN_SECONDS = 600.0
QUIET = {
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
}  #: peers that would report to their makers


class PeerAbsent(Exception):
    """The peer cannot be installed or run here; the text says why."""


@dataclass(frozen=True)
class Peer:
    """A package (or several, with blanks between them), and the script in `peers/` that measures it and prints JSON."""

    name: str
    package: str
    script: str

    def interpreter(self, cache: Path) -> Path:
        """The Python of this peer's environment, which is made if it is not there. Raises `PeerAbsent`."""
        home = cache / f"peer-{self.package.replace(' ', '+')}-{sys.version_info.major}.{sys.version_info.minor}"
        python, done = home / "bin" / "python", home / "installed"
        if not done.exists():
            print(f"installing {self.package} into {home}", file=sys.stderr)
            venv.create(home, with_pip=True, clear=True)
            _run([str(python), "-m", "pip", "install", "--quiet", *self.package.split()], INSTALL_SECONDS)
            done.touch()
        return python

    def run(self, cache: Path, arguments: Sequence[str]) -> Any:
        """Run the peer's script and return what it printed. Raises `PeerAbsent`."""
        python = self.interpreter(cache)
        return json.loads(_run([str(python), str(PEERS / self.script), *arguments], RUN_SECONDS))


def default_cache() -> Path:
    return Path(tempfile.gettempdir()) / "penstock-benchmark"


def _run(command: Sequence[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env={**os.environ, **QUIET}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerAbsent(str(error)) from error
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("WARNING")]
        raise PeerAbsent(lines[-1] if lines else f"exit code {done.returncode}")
    return done.stdout
