"""The state of runs, from their folders and the queue together. Only looks: writes nothing, submits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmark.records import RunFolder, RunView, State, Status
from benchmark.slurm import scheduler
from benchmark.slurm.board import cause_of
from benchmark.slurm.scheduler import SilentError
from benchmark.slurm.submission import Assignment, PlannedRun, Registry, assignments


def overview(out: Path, runs: Mapping[str, RunView]) -> tuple[dict[str, RunView], str]:
    """Return every run, those included that so far only a queue knows of, and a remark if something cannot be known.

    Args:
        out: output folder.
        runs: as their folders tell them, by folder below it.
    """
    views, registry = dict(runs), Registry(out)
    for folder, why in registry.waiting().items():
        if folder in views and views[folder].status.state is State.PLANNED:
            views[folder] = replace(views[folder], status=replace(views[folder].status, cause=why))
    submissions, remarks = registry.open(), registry.damage()
    if not submissions:
        return views, "\n".join(remarks)
    try:
        board = assignments([s for s in submissions if s.job], scheduler.queue())
    except SilentError as silence:
        remarks.append(f"Slurm does not answer ({silence}): states are as the run folders tell them.")
        return views, "\n".join(remarks)
    for submission in submissions:
        for task in submission.plan:
            for run in task:
                if run.folder in board:
                    views[run.folder] = _with_job(views.get(run.folder) or _planned(out, run), board[run.folder])
    return views, "\n".join(remarks)


def _planned(out: Path, run: PlannedRun) -> RunView:
    status = Status(dataset=run.dataset, method=run.method, seed=run.seed)
    return RunView(RunFolder(out / run.folder), status=status)


def _with_job(view: RunView, assignment: Assignment) -> RunView:
    """Return a run as seen with the job that is to train it."""
    status, job = view.status, assignment.job
    is_its = status.job == assignment.number
    if status.state is State.DONE or (is_its and status.state in (State.FAILED, State.CANCELLED)):
        return view
    if job.is_over:
        if (is_its and status.state is State.RUNNING) or status.state is State.PLANNED:
            cause = f"{cause_of(assignment)}; bench wait or the same bench run lets it go on"
            return replace(view, status=replace(status, state=State.INTERRUPTED, cause=cause))
        return view
    if job.is_pending or not is_its:
        waits = f"waits: {job.reason}" if job.is_pending else "its job has begun"
        return replace(view, status=replace(status, state=State.QUEUED, cause=waits, job=assignment.number))
    return view


def active_jobs(board: Mapping[str, Assignment]) -> dict[str, list[str]]:
    """Return the jobs that are not over, each with the folders of its runs."""
    found: dict[str, list[str]] = {}
    for folder, assignment in board.items():
        if not assignment.job.is_over:
            found.setdefault(assignment.number, []).append(folder)
    return found
