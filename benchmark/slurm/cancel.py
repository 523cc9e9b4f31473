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
    """Cancel runs that wait or work; others that share a job with them go on.

    A launcher at work sees the request within a second and stops its worker. A job that waits, and has nothing else to
    do, is taken out of the queue.

    Raises:
        SilentError: when Slurm does not answer; a job that starts later will still see the request.
    """
    for run in runs:
        run.folder.ask_to_cancel()
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
