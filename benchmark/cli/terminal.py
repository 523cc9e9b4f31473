"""The console: as wide as the terminal, or wide enough for tables where there is none."""

from __future__ import annotations

from rich.console import Console

WIDE = 160
"""Columns when output goes to a file or a pipe."""


def console(stderr: bool = False) -> Console:
    """Return a console for tables and plain lines; highlighting is off, so numbers look the same everywhere."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE)
