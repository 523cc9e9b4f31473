"""`bench status`: how far every run under a folder is."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from benchmark.cli.options import RUNS, SOME_FAILED, Json, Out
from benchmark.cli.terminal import console as open_console

if TYPE_CHECKING:
    from benchmark.records import RunView


def status(out: Out = RUNS, as_json: Json = False) -> None:
    """Show state, epoch, score so far and cause of failure of every run."""
    from benchmark.records import scan

    runs = list(scan(out))
    if as_json:
        sys.stdout.write(json.dumps([as_row(run) for run in runs], indent=1) + "\n")
    else:
        _show(runs, out)
    if any(run.problem for run in runs):
        raise typer.Exit(SOME_FAILED)


def _show(runs: Sequence[RunView], out: Path) -> None:
    from benchmark.cli.progress import COLOURS, seconds
    from benchmark.records import State

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state", "attempt", "epoch", "valid %", "left", "cause"):
        table.add_column(name)
    for run in runs:
        row = as_row(run)
        state = State(row["state"])
        table.add_row(
            Text(row["run"]),
            Text(row["state"], style=COLOURS[state]),
            str(row["attempts"]),
            f"{row['epoch']}/{row['epochs']}",
            "" if row["metric"] is None else f"{100 * row['metric']:.1f}",
            seconds(run.status.eta) if state is State.RUNNING else "",
            Text(row["cause"]),
        )
    console = open_console()
    console.print(table if runs else f"No runs in {out}.")
    if any(run.problem for run in runs):
        console.print("A damaged run is trained again by the command that made it.")


def as_row(run: RunView) -> dict[str, Any]:
    """Return a run as plain values."""
    known = bool(run.spec)
    return {
        "run": f"{run.dataset} {run.method} s{run.seed}" if known else run.folder.path.name,
        "dataset": run.dataset if known else None,
        "method": run.method if known else None,
        "seed": run.seed if known else None,
        "state": str(run.status.state),
        "attempts": run.status.attempts,
        "epoch": run.status.epoch,
        "epochs": run.status.epochs,
        "metric": run.status.metric,
        "cause": run.problem or run.status.cause,
        "folder": str(run.folder.path),
    }
