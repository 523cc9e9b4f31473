"""What a launcher tells a worker, and the signals and exit codes between them. Imports no torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmark.records import HEARTBEAT

STOP_SIGNAL = signal.SIGUSR2
"""Asks a worker to stop after the epoch in hand; what submitit has Slurm send before it takes a machine away."""

BUSY = 75
"""Exit code of a worker whose run another process is training."""


UNRECORDED = 74
"""Exit code of a worker that could not write how its run ended."""


INTERRUPTED = 130
"""Exit code of a worker that was stopped while no run was in its hands."""

STOPPING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
"""Signals that stop a sweep: Ctrl-C, what `kill` and `timeout` send, and what a terminal that closes sends."""


@contextmanager
def held_back() -> Iterator[None]:
    """Let no signal of `STOPPING` in; what comes meanwhile takes effect afterwards. Children start so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass(frozen=True)
class Attempt:
    """Where and how a run is trained: nothing that changes its numbers on one kind of machine."""

    out: Path
    """Output folder of all runs."""
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 1
    jobs: int = 1
    """Runs that its launcher trains at a time, this one included."""
    force: bool = False
    """Train again what is done."""
    heartbeat: float = HEARTBEAT
    """Seconds between heartbeats."""
    job: str = ""
    """The Slurm job, if any."""
    gpu: str = ""
    """The number that the scheduler has for the device, if any."""
