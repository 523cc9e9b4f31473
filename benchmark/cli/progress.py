"""Progress of a sweep: a live table in a terminal, plain lines without one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmark.cli.terminal import valid_score
from benchmark.metrics import HEADLINE
from benchmark.records import RunFolder, State, Status

if TYPE_CHECKING:
    from benchmark.plan.spec import RunSpec

COLOURS = {
    State.PLANNED: "dim", State.QUEUED: "blue", State.RUNNING: "cyan", State.INTERRUPTED: "yellow",
    State.CANCELLED: "yellow", State.FAILED: "red", State.DONE: "green",
}  # fmt: skip
ROWS = 24
"""Most rows of the live table: running first, then failed, waiting, done."""
ORDER = (
    State.RUNNING, State.INTERRUPTED, State.FAILED, State.CANCELLED, State.QUEUED, State.PLANNED, State.DONE,
)  # fmt: skip


AHEAD = (State.RUNNING, State.INTERRUPTED, State.QUEUED, State.PLANNED)
"""States of runs that are still to be trained, in part or whole."""


class Progress:
    """Shows how far the runs of a sweep are, read from their status files."""

    def __init__(self, specs: Sequence[RunSpec], out: Path, jobs: int, console: Console) -> None:
        self.runs = [(spec, RunFolder(spec.folder(out))) for spec in specs]
        self.jobs = jobs
        self.console = console
        self.states: dict[str, State] = {}
        self.live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._next = 0.0

    def __enter__(self) -> Progress:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._next = 0.0
        self.tick()
        if self.live:
            self.live.stop()

    def tick(self) -> None:
        """Read the status files and show them, at most twice a second and in a tenth of the time."""
        if time.monotonic() < self._next:
            return
        began = time.monotonic()
        statuses = [(spec, folder.last_status()) for spec, folder in self.runs]
        self._next = began + max(0.5, 10 * (time.monotonic() - began))  # thousands of files are not read all the time
        if self.live:
            self.live.update(self._table(statuses))
        for spec, status in statuses:
            before = self.states.get(spec.id)
            if not self.live and before is not None and status.state is not before:
                words = f"{status.state}: {spec.title}"
                score = f", valid {HEADLINE.label} {valid_score(status, HEADLINE.unit)}" if status.epoch else ""
                self.console.print(
                    words + score + (f", {status.cause}" if status.cause else ""), markup=False, soft_wrap=True
                )
            self.states[spec.id] = status.state

    def _table(self, statuses: Sequence[tuple[RunSpec, Status]]) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("run", "state", "epoch", f"valid {HEADLINE.label} {HEADLINE.unit}", "left"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right")
        ranked = sorted(statuses, key=lambda item: ORDER.index(item[1].state))
        for spec, status in ranked[:ROWS]:
            epoch = f"{status.epoch}/{status.epochs}" if status.epochs else ""
            left = seconds(status.eta) if status.state is State.RUNNING else ""
            table.add_row(
                Text(spec.title), Text(str(status.state), style=COLOURS[status.state]), epoch, valid_score(status), left
            )
        return Group(table, Text(self._footer(statuses)))

    def _footer(self, statuses: Sequence[tuple[RunSpec, Status]]) -> str:
        counts = {state: sum(status.state is state for _, status in statuses) for state in State}
        words = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        left = time_left(statuses, self.jobs)
        return words if left is None else f"{words}; about {seconds(left)} left"


def time_left(statuses: Sequence[tuple[RunSpec, Status]], jobs: int) -> float | None:
    """Return the seconds that a sweep still takes, by epochs still to do; None before any epoch is done.

    A run without a pace of its own, planned or just begun, counts at the mean pace of its method on its data set, else
    at that of all runs, so that the estimate does not drop and rise again whenever a run begins.
    """
    paces: dict[tuple[str, ...], list[float]] = {}
    for spec, status in statuses:
        if status.pace is not None:
            paces.setdefault((), []).append(status.pace)
            paces.setdefault((spec.method.label, spec.dataset.label), []).append(status.pace)
    if not paces:
        return None
    left = [0.0]
    for spec, status in statuses:
        if status.state in AHEAD:
            alike = paces.get((spec.method.label, spec.dataset.label), paces[()])
            pace = fmean(alike) if status.pace is None or status.state is not State.RUNNING else status.pace
            left.append(pace * (spec.recipe.epochs - status.epoch))
    return max(sum(left) / jobs, *left)


def seconds(value: float | None) -> str:
    """Write a duration as a person would."""
    if value is None:
        return "?"
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"
