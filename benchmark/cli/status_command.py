"""`bench status`: how far every run under a folder is."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmark.cli.options import RUNS, SOME_FAILED, Json, Out
from benchmark.cli.terminal import console as open_console
from benchmark.cli.terminal import valid_score, where_to_look
from benchmark.metrics import HEADLINE

if TYPE_CHECKING:
    from benchmark.records import RunView

ROWS = 40
"""Most rows of the table unless --all: what needs attention comes first."""
DAMAGED = "damaged"
"""In place of a state: some file of the run cannot be read."""
REFRESH = 2.0
"""Seconds between two looks with --watch."""


def status(
    out: Out = RUNS,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until nothing is at work.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every run, not only the most urgent.")] = False,
    as_json: Json = False,
) -> None:
    """Show state, attempt, epoch, score so far, machine and cause of failure of every run.

    Exit code 3 if a run has failed or cannot be read. Only looks: bench run and bench wait start again what died.
    """
    from benchmark.launch.driver import overview
    from benchmark.records import State

    runs, remarks = overview(out)
    if watch and not as_json:
        console = open_console()
        with Live(console=console, refresh_per_second=4) as live:
            live.update(_picture(runs, out, remarks, show_all))
            while any(run.status.state in (State.RUNNING, State.QUEUED) for run in runs):
                time.sleep(REFRESH)
                runs, remarks = overview(out)
                live.update(_picture(runs, out, remarks, show_all))
    elif as_json:
        sys.stdout.write(json.dumps([as_row(run) for run in runs], indent=1) + "\n")
        for remark in remarks:
            open_console(stderr=True).print(remark, markup=False, soft_wrap=True)
    else:
        open_console().print(_picture(runs, out, remarks, show_all))
    if any(run.problem or run.status.state is State.FAILED for run in runs):
        raise typer.Exit(SOME_FAILED)


def _picture(runs: Sequence[RunView], out: Path, remarks: Sequence[str], show_all: bool) -> Group:
    """Return the table and what is to be said below it."""
    from benchmark.cli.progress import ORDER

    if not runs:
        return Group(*map(Text, [f"No runs in {out}.", *remarks]))
    counts = Counter(run.status.state for run in runs if not run.problem)
    ranked = (
        sorted(runs, key=lambda run: -1 if run.problem else ORDER.index(run.status.state))
        if len(runs) > ROWS
        else list(runs)
    )
    shown = ranked if show_all else ranked[:ROWS]
    damaged = sum(bool(run.problem) for run in runs)
    numbers = [f"{counts[state]} {state}" for state in ORDER if counts[state]]
    lines = [", ".join([*numbers, *[f"{damaged} {DAMAGED}"] * (damaged > 0)])]
    if len(shown) < len(runs):
        lines.append(f"{len(runs) - len(shown)} more with --all.")
    if damaged:
        lines.append("A damaged run is trained again by the command that made it.")
    lines += where_to_look(runs, out)
    return Group(_table(shown), *map(Text, [*lines, *remarks]))


def _table(runs: Sequence[RunView]) -> Table:
    from benchmark.cli.progress import COLOURS, seconds
    from benchmark.records import State

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("run", "state", "attempt", "epoch", f"valid {HEADLINE.unit}", "left", "on", "cause"):
        table.add_column(name)
    for run in runs:
        row = as_row(run)
        state = run.status.state
        table.add_row(
            Text(row["run"]),
            Text(row["state"], style=COLOURS[State.FAILED if run.problem else state]),
            str(row["attempts"]),
            f"{row['epoch']}/{row['epochs']}",
            valid_score(run.status),
            seconds(run.status.eta) if state is State.RUNNING else "",
            Text(row["host"] + f" gpu {row['gpu']}" * bool(row["gpu"])) if state is State.RUNNING else "",
            Text(row["cause"]),
        )
    return table


def as_row(run: RunView) -> dict[str, Any]:
    """Return a run as plain values."""
    known = bool(run.dataset)
    return {
        "run": run.title,
        "dataset": run.dataset if known else None,
        "method": run.method if known else None,
        "seed": run.seed if known else None,
        "state": DAMAGED if run.problem else str(run.status.state),
        "attempts": run.status.attempts,
        "epoch": run.status.epoch,
        "epochs": run.status.epochs,
        "metric": run.status.metric,
        "eta": run.status.eta,
        "host": run.status.host,
        "gpu": run.status.gpu,
        "job": run.status.job,
        "ends": list(run.status.ends),
        "cause": run.problem or run.status.cause,
        "folder": str(run.folder.path),
    }
