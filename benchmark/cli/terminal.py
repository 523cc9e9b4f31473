"""The console: as wide as the terminal, or wide enough for tables where there is none."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from benchmark.cli.options import RUNS
from benchmark.cli.visible import Console
from benchmark.metrics import HEADLINE
from benchmark.records import RunView, State, Status
from benchmark.tables.table import UNSUPPORTED

WIDE = 160
"""Columns when output goes to a file or a pipe."""


def console(stderr: bool = False) -> Console:
    """Return a console for tables and plain lines; highlighting is off, so numbers look the same everywhere."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


@contextmanager
def telling(console: Console, words: str) -> Generator[None]:
    """Say on a terminal what is being done while it takes, in a line that is gone afterwards."""
    shown = (
        Live(Spinner("dots", Text(words)), console=console, transient=True) if console.is_terminal else nullcontext()
    )
    with shown:
        yield


def valid_score(status: Status, unit: str = "") -> str:
    """Return the fused validation score of a run's last epoch as printed; n/a where nothing was held out for it."""
    if status.metric is None:
        return UNSUPPORTED if status.epoch else ""
    return f"{HEADLINE.text(status.metric)} {unit}".strip()


def where_to_look(runs: Sequence[RunView], out: Path) -> list[str]:
    """Return a line with the command that says why runs failed; none where no run has."""
    failed = [run.folder.path.name for run in runs if run.status.state is State.FAILED]
    if not failed:
        return []
    command = shlex.join(["bench", "logs", failed[0], *(["--out", str(out)] if out != RUNS else [])])
    return [f"What it said: {command}" + f" (and so for {len(failed) - 1} more)" * (len(failed) > 1)]
