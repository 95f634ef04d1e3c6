"""`penstock verify`: the proof that a run has lost nothing."""

from __future__ import annotations

from typing import Annotated

import typer


def verify(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="An id, the beginning of one, or a directory.", show_default=False)
    ],
) -> None:
    """Check a run."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    def command() -> int:
        from pipeline.cli.exits import OK, REFUSED
        from pipeline.cli.store import usual
        from pipeline.core.errors import JournalLocked
        from pipeline.core.visible import visible
        from pipeline.durability.disk.lock import is_locked
        from pipeline.durability.inspection.verify import verify as proof_of
        from pipeline.durability.journal import DEAD, FILE, LOCK

        kept = usual()
        directory = kept.find(run)
        if is_locked(directory / LOCK):
            raise JournalLocked(f"run {kept.name_of(directory)}: a process runs with it; what it writes is not at rest")
        proof = proof_of(directory / FILE, directory / DEAD)
        for line in str(proof).splitlines():
            typer.echo(visible(line))
        return OK if proof.holds else REFUSED

    ended(command, Voice(), "penstock verify --help")
