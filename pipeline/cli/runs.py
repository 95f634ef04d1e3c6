"""`penstock runs`: the runs of the past, what they were, where they are kept, and what can go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import flags
from pipeline.cli.flags import flag

if TYPE_CHECKING:
    from pipeline.cli.past import Past
    from pipeline.cli.store import Runs
    from pipeline.cli.voice import Voice

runs = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Runs that were kept: list, show, path, rm, prune."
)

RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="An id, the beginning of one, or a directory.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


@runs.command("list", help="The runs that were begun in this directory, the last one first.")
def list_(
    everywhere: Annotated[bool, typer.Option("--all", "-a", help="Those of other directories too.")] = False,
    json: Json = False,
) -> None:
    """List runs."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    voice = Voice()

    def command() -> int:
        import os

        from pipeline.cli.past import newest_first
        from pipeline.cli.runtable import as_json, table
        from pipeline.cli.store import usual

        kept = usual()
        here = os.getcwd()
        found = [each for each in newest_first(kept) if everywhere or each.here == here or each.state == "damaged"]
        if json:
            typer.echo(as_json(found))
        elif found:
            typer.echo("\n".join(table(found)))
        else:
            voice.note(
                f"no runs are kept in {kept.place}" if everywhere else "no runs of this directory; --all: of all"
            )
        return 0

    ended(command, voice, "penstock runs list --help")


@runs.command("show", help="All that is known of a run.")
def show(run: RunName, json: Json = False) -> None:
    """Show one run."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    def command() -> int:
        from pipeline.cli.past import past
        from pipeline.cli.runtable import page, page_json
        from pipeline.cli.store import usual
        from pipeline.core.errors import JournalError
        from pipeline.durability.inspection.overview import details

        kept = usual()
        found = past(kept.find(run), kept)
        if found.seen is None:
            raise JournalError(found.damage)
        more = details(found.directory)
        typer.echo(page_json(found, more) if json else "\n".join(page(found, more)))
        return 0

    ended(command, Voice(), "penstock runs show --help")


@runs.command("path", help="The directory of a run.")
def path(run: RunName) -> None:
    """Print where a run is kept."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    def command() -> int:
        from pipeline.cli.store import usual

        typer.echo(usual().find(run))
        return 0

    ended(command, Voice(), "penstock runs path --help")


@runs.command("rm", help="Remove runs; their outputs stay.")
def rm(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Ids, beginnings of ids, or directories.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove runs."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    voice = Voice()

    def command() -> int:
        from pipeline.cli.past import free, past
        from pipeline.cli.store import usual
        from pipeline.durability.disk.lock import locked
        from pipeline.durability.journal import LOCK

        kept = usual()
        for directory in [kept.find(name) for name in dict.fromkeys(names)]:
            found = past(free(directory, kept), kept)
            with locked(directory / LOCK):
                _remove(found, voice, dry_run=dry_run)
        return 0

    ended(command, voice, "penstock runs rm --help")


@runs.command("prune", help="Remove finished runs of the store, of all directories; their outputs stay.")
def prune(
    older_than: Annotated[
        float | None,
        flag("--older-than", metavar="DURATION", parser=flags.an_age, help="Written to longer ago, as 30d or 12h."),
    ] = None,
    keep: Annotated[
        int | None, flag("--keep", metavar="N", parser=flags.a_count, help="All but the last N of them.")
    ] = None,
    unfinished: Annotated[
        bool, flag("--unfinished", help="Also what could be gone on with, and what is damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove old runs."""
    from pipeline.cli.ending import ended
    from pipeline.cli.voice import Voice

    voice = Voice()

    def command() -> int:
        from contextlib import suppress

        from pipeline.cli.exits import UsageError
        from pipeline.cli.store import usual
        from pipeline.core.errors import JournalLocked
        from pipeline.durability.disk.lock import locked
        from pipeline.durability.journal import LOCK

        if older_than is None and keep is None:
            raise UsageError("say which: --older-than 30d, --keep 20, or both")
        kept = usual()
        going = _prunable(kept, older_than, keep or 0, unfinished)
        for found in going:
            with suppress(JournalLocked), locked(found.directory / LOCK):
                _remove(found, voice, dry_run=dry_run)
        if not going:
            voice.note("nothing to remove")
        return 0

    ended(command, voice, "penstock runs prune --help")


def _prunable(kept: Runs, older_than: float | None, keep: int, unfinished: bool) -> list[Past]:
    import time

    from pipeline.cli.past import newest_first, written

    states = {"finished", "stopped", "unfinished", "damaged"} if unfinished else {"finished"}
    found = [each for each in newest_first(kept) if each.state in states][keep:]
    if older_than is None:
        return found
    return [each for each in found if time.time() - written(each.directory) > older_than]


def _remove(found: Past, voice: Voice, *, dry_run: bool) -> None:
    """Remove one run, whose lock we have."""
    from pipeline.cli.store import forget

    if dry_run:
        voice.note(f"would remove {found.run} ({found.state}): {found.what}")
        return
    others = forget(found.directory)
    left = f"; the directory stays, with {', '.join(others[:5])}" if others else ""
    voice.note(f"removed {found.run} ({found.state}): {found.what}{left}")
