"""The outcome of submitted jobs, from registry, queue and run folders together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmark.launch.launcher import FINAL, cancel
from benchmark.records import RunFolder, State, Status
from benchmark.slurm import scheduler
from benchmark.slurm.profile import minutes
from benchmark.slurm.submission import Assignment, Registry, Submission, adopt, assignments
from benchmark.slurm.task import limit_words

PUT_BACK_BY_SLURM = {"BOOT_FAIL", "NODE_FAIL", "PREEMPTED"}
"""Ends after which Slurm itself may put a job back; believed only when seen twice."""


def read_board(registry: Registry) -> dict[str, Assignment]:
    """Return which job is to train which run, after closing submissions of which nothing is left.

    Those that cannot be read are closed too: jobs of them that start later do nothing, so their runs may be submitted
    again, while those at work keep their runs.

    Must be called with the registry locked.

    Raises:
        SilentError: when Slurm does not answer.
    """
    for damaged in registry.damaged():
        damaged.close(damaged.problem)
    submissions = registry.open()
    if not submissions:
        return {}
    queue = scheduler.queue()
    for submission in submissions:
        if not submission.job and not adopt(submission, queue):
            submission.close("never reached Slurm")
    submissions = [submission for submission in submissions if submission.job]
    board = assignments(submissions, queue)
    for submission in submissions:
        if _is_settled(submission, board, registry.out):
            submission.close("every job of it is over")
    return board


def _is_settled(submission: Submission, board: Mapping[str, Assignment], out: Path) -> bool:
    """Return whether a submission is over, after recording how its jobs ended."""
    if any(not assigned.job.is_over for assigned in board.values() if assigned.submission == submission):
        return False
    for run in (run for runs in submission.plan for run in runs):
        assigned, folder = board[run.folder], RunFolder(out / run.folder)
        status = folder.last_status()
        if assigned.submission != submission or status.state in FINAL:
            continue
        if assigned.job.state in PUT_BACK_BY_SLURM or not assigned.log.exists() or folder.is_alive(status):
            return False
        note_end(folder, status, assigned)
    return True


def note_end(folder: RunFolder, status: Status, assignment: Assignment) -> Status:
    """Record how a job ended whose run could not say so itself; return the run's status."""
    job = assignment.job
    if status.state in FINAL:
        return status
    if job.state == "CANCELLED":
        cancel(assignment.spec(), folder, job.words)
        return folder.last_status()
    if status.job == assignment.number and status.state is not State.RUNNING:
        return status
    if status.job == assignment.number:
        status = replace(status, cause=cause_of(assignment, status))
    else:
        cause = f"before the run started, {cause_of(assignment)}"
        status = replace(status, job=assignment.number, stalled=status.stalled + 1, cause=cause)
    status = replace(status, state=State.INTERRUPTED, updated=time.time())
    folder.write_status(status)
    return status


def give_up(folder: RunFolder, status: Status) -> None:
    """Record that a run is not started again."""
    cause = f"{status.stalled} attempts in a row finished no epoch; the last: {status.cause}"
    folder.write_status(replace(status, state=State.FAILED, cause=cause, updated=time.time()))


def cause_of(assignment: Assignment, status: Status | None = None) -> str:
    """Return how a job ended, with the last line of its output where that may explain more.

    Args:
        assignment: of the job.
        status: of its run, if that had begun.
    """
    words = assignment.job.words
    if assignment.job.state == "TIMEOUT" and status is not None and status.stalled:
        limit = 60.0 * minutes(assignment.submission.terms.request.time)
        return limit_words(status, limit, limit)
    try:
        said = scheduler.last_words(assignment.log.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return f"{words}, without any output: does its node see {assignment.submission.path}?"
    return f"{words}; {said}" if assignment.job.state == "FAILED" else words
