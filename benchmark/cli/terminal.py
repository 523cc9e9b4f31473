"""The console: as wide as the terminal, or wide enough for tables where there is none."""

from __future__ import annotations

from rich.console import Console

from benchmark.metrics import HEADLINE
from benchmark.records import Status
from benchmark.tables.table import UNSUPPORTED

WIDE = 160
"""Columns when output goes to a file or a pipe."""


def console(stderr: bool = False) -> Console:
    """Return a console for tables and plain lines; highlighting is off, so numbers look the same everywhere."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)


def valid_score(status: Status, unit: str = "") -> str:
    """Return the fused validation score of a run's last epoch as printed; n/a where nothing was held out for it."""
    if status.metric is None:
        return UNSUPPORTED if status.epoch else ""
    return f"{HEADLINE.text(status.metric)} {unit}".strip()
