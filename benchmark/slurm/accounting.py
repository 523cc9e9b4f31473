"""What the jobs of an output folder have cost, by method, as Slurm's accounting has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from benchmark.errors import Problem, UserError
from benchmark.slurm import scheduler
from benchmark.slurm.scheduler import SilentError
from benchmark.slurm.submission import Registry

HOUR = 3600.0
CHUNK = 500
"""Job ids in one call of sacct."""
FIELDS = ("JobID", "Eligible", "Start", "ElapsedRaw", "CPUTimeRAW", "AllocTRES")


@dataclass(frozen=True)
class Cost:
    """What the runs of one method have used on a cluster, all attempts and failed ones included."""

    method: str
    """Label of the method."""
    runs: int = 0
    starts: int = 0
    """How often a job of theirs began."""
    gpu_hours: float = 0.0
    """Hours for which GPUs were allocated; runs that share a job share them evenly."""
    cpu_hours: float = 0.0
    wait: float = 0.0
    """Mean seconds between a job's being free to begin and its beginning."""
    longest_wait: float = 0.0
    """In seconds."""


@dataclass(frozen=True)
class _Start:
    """A job's time on a node."""

    number: str
    wait: float
    gpu_seconds: float
    cpu_seconds: float


def costs_of(out: Path) -> list[Cost]:
    """Return what was used under an output folder, by method.

    Raises:
        UserError: when the cluster keeps no accounts, or does not show them.
    """
    plans = {
        submission.number_of(task): runs
        for submission in Registry(out).all() if submission.job
        for task, runs in enumerate(submission.plan)
    }  # fmt: skip
    try:
        starts = list(_starts(sorted({number.partition("_")[0] for number in plans})))
    except SilentError as silence:
        raise UserError(Problem("bench cluster cost", "a cluster with accounting (sacct)", str(silence))) from None
    found: dict[str, Cost] = {}
    for run in {run.folder: run for runs in plans.values() for run in runs}.values():
        cost = found.get(run.method, Cost(run.method))
        found[run.method] = replace(cost, runs=cost.runs + 1)
    for start in starts:
        for run in plans.get(start.number, ()):
            found[run.method] = _add(found[run.method], start, len(plans[start.number]))
    return [found[method] for method in sorted(found)]


def _add(cost: Cost, start: _Start, sharing: int) -> Cost:
    starts = cost.starts + 1
    return replace(
        cost,
        starts=starts,
        gpu_hours=cost.gpu_hours + start.gpu_seconds / HOUR / sharing,
        cpu_hours=cost.cpu_hours + start.cpu_seconds / HOUR / sharing,
        wait=cost.wait + (start.wait - cost.wait) / starts,
        longest_wait=max(cost.longest_wait, start.wait),
    )


def _starts(numbers: Sequence[str]) -> Iterator[_Start]:
    """Yield every start of jobs, those that Slurm put back into the queue once for each time."""
    for first in range(0, len(numbers), CHUNK):
        listed = scheduler.ask(
            "sacct", "--noheader", "--parsable2", "--allocations", "--duplicates", f"--format={','.join(FIELDS)}",
            f"--jobs={','.join(numbers[first : first + CHUNK])}",
        )  # fmt: skip
        for line in listed.splitlines():
            number, eligible, start, elapsed, cpu, allocated = line.split("|")
            wait = _between(eligible, start)
            if wait is not None and elapsed.isdecimal() and cpu.isdecimal():
                gpus = re.search(r"\bgres/gpu=(\d+)", allocated)
                yield _Start(number, wait, int(gpus.group(1)) * float(elapsed) if gpus else 0.0, float(cpu))


def _between(first: str, second: str) -> float | None:
    """Return the seconds between two times as sacct prints them; None where one is unknown."""
    try:
        return max((datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds(), 0.0)
    except ValueError:
        return None
