"""`trtforge cache`: the store of stage results."""

import time
from typing import TYPE_CHECKING

import click

from trtforge.cli.bounds import FiniteRange
from trtforge.cli.console import common_options, print_json, print_table

if TYPE_CHECKING:
    from trtforge.pipeline.store import Store


@click.group()
def cache() -> None:
    """List, size or prune the store of stage results ($TRTFORGE_CACHE, ~/.cache/trtforge)."""


@cache.command("list")
@common_options
def list_entries(as_json: bool, quiet: bool, verbose: bool) -> None:
    """List what is stored, the most recently used first."""
    del quiet
    rows = sorted(_store().entries(), key=lambda row: -row["used"])
    if as_json:
        print_json("trtforge.cache-list/1", {"entries": rows})
        return
    width = 64 if verbose else 12
    print_table(
        ("stage", "key", "files", "MB", "unused for"),
        [
            (
                row["stage"],
                row["key"][:width],
                str(row["files"]),
                f"{row['bytes'] / 1e6:.1f}",
                _age(time.time() - row["used"]),
            )
            for row in rows
        ],
    )


@cache.command()
@common_options
def size(as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say how much is stored, and where."""
    del quiet, verbose
    store = _store()
    rows = store.entries()
    total = sum(row["bytes"] for row in rows)
    if as_json:
        print_json(
            "trtforge.cache-size/1", {"path": str(store.root), "entries": len(rows), "bytes": total}
        )
        return
    click.echo(f"{total / 1e6:.1f} MB in {len(rows)} entries, {store.root}")


@cache.command()
@click.option(
    "--keep", default="0", metavar="SIZE", help="Keep this much, e.g. 5GB; default nothing."
)
@click.option(
    "--unused-days",
    type=FiniteRange(min=0),
    metavar="DAYS",
    default=0.0,
    help="Remove only what was unused this long.",
)
@common_options
def prune(keep: str, unused_days: float, as_json: bool, quiet: bool, verbose: bool) -> None:
    """Remove stored results, the longest unused first; a running build's are left."""
    del quiet, verbose
    from trtforge.pipeline.store import parse_size

    removed, freed = _store().prune(keep_bytes=parse_size(keep), unused_for_s=unused_days * 86400)
    if as_json:
        print_json("trtforge.cache-prune/1", {"removed": removed, "bytes": freed})
        return
    click.echo(f"removed {removed} entries, {freed / 1e6:.1f} MB")


def _store() -> "Store":
    from trtforge.pipeline.store import Store, default_root

    return Store(default_root())


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
