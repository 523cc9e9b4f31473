"""What a launcher tells a worker, and the signals and exit codes between them. Imports no torch."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from benchmark.records import HEARTBEAT

STOP_SIGNAL = signal.SIGUSR2
"""Asks a worker to stop after the epoch in hand; what submitit has Slurm send before it takes a machine away."""

BUSY = 75
"""Exit code of a worker whose run another process is training."""


@dataclass(frozen=True)
class Attempt:
    """Where and how a run is trained: nothing that changes its numbers on one kind of machine."""

    out: Path
    """Output folder of all runs."""
    data_root: Path | None = None
    device: str = "cpu"
    threads: int = 1
    force: bool = False
    """Train again what is done."""
    heartbeat: float = HEARTBEAT
    """Seconds between heartbeats."""
    job: str = ""
    """The Slurm job, if any."""
    gpu: str = ""
    """The number that the scheduler has for the device, if any."""
