"""Stopping runs, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmark.launch.launcher import cancel
from benchmark.records import RunView
from benchmark.slurm import scheduler
from benchmark.slurm.board import read_board
from benchmark.slurm.overview import active_jobs
from benchmark.slurm.submission import Registry


def cancel_runs(out: Path, runs: Sequence[RunView]) -> None:
    """Take the jobs of runs that wait out of the queue, if they have nothing else to do.

    A launcher at work sees the request in a run's folder within a second and stops its worker.

    Raises:
        SilentError: when Slurm does not answer; a job that starts later will still see the request.
    """
    registry = Registry(out)
    if not registry.path.exists():
        return
    wanted = {str(run.folder.path.relative_to(out)): run.folder for run in runs}
    with registry.lock():
        board = read_board(registry)
        idle = {
            number: folders
            for number, folders in active_jobs(board).items()
            if board[folders[0]].job.is_pending and wanted.keys() >= set(folders)
        }
        scheduler.cancel(list(idle))
        left = scheduler.queue()
        for number, folders in idle.items():
            if number in left and not left[number].is_over:
                continue  # it started just now; its launcher will see the request
            for folder in folders:
                cancel(board[folder].spec(), wanted[folder])
