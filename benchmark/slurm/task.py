"""What a job of ours does on its machine: train the runs of one line of a plan, and stop in time."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from benchmark.launch.launcher import Launcher, Resources
from benchmark.plan.spec import RunSpec
from benchmark.records import RunFolder, State
from benchmark.slurm.scheduler import requeue
from benchmark.slurm.submission import Submission, Terms
from benchmark.train.attempt import STOP_SIGNAL

MARGIN = 20.0
"""Seconds before the end of a job's time at which its runs are stopped even in the middle of an epoch; half of the
notice where that is less."""


@dataclass(frozen=True)
class Task:
    """The callable that submitit hands to a job."""

    submission: str
    index: int

    def __call__(self) -> None:
        submission = Submission(Path(self.submission))
        if not submission.is_closed:
            _Watch(submission.terms, submission.specs_of(self.index)).train()


def job_number() -> str:
    """Return the id of the current job, such as 1234_5; empty outside Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def share_out(terms: Terms) -> Resources:
    """Divide a job's resources among its runs."""
    options, request, jobs = terms.options, terms.request, terms.request.room(terms.profile.per_gpu)
    device = options.device if options.device != "auto" else "cuda" if request.gpus else "cpu"
    return Resources(jobs, device, request.gpus, options.threads or max(request.cpus // jobs, 1))


class _Watch:
    """Trains the runs of a job and reacts to Slurm's signals."""

    def __init__(self, terms: Terms, specs: list[RunSpec]) -> None:
        self.terms = terms
        self.specs = specs
        self.folders = [RunFolder(spec.folder(terms.options.out)) for spec in specs]
        attempt = terms.options.attempt(heartbeat=terms.profile.heartbeat, job=job_number(), force=False)
        self.launcher = Launcher(attempt, share_out(terms), terms.profile.retries, patient=False)
        self.deadline = float("inf")
        self.was_told = False

    def train(self) -> None:
        for number in (STOP_SIGNAL, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # Slurm signals every process of a job: helpers must outlive workers
        self.launcher.prepare()
        signal.signal(STOP_SIGNAL, self._told_to_leave)
        signal.signal(signal.SIGTERM, self._terminated)
        self.launcher.launch([spec for spec in self.specs if not self._gave_up(spec)], self._tick)
        if self.was_told and any(self._is_unfinished(folder) for folder in self.folders):
            requeue(self.launcher.attempt.job)  # where that fails, the driver submits the rest again

    def _told_to_leave(self, number: int, frame: FrameType | None) -> None:
        self.was_told = True
        notice = self.terms.profile.notice
        self.deadline = time.monotonic() + max(notice - MARGIN, notice / 2)
        self.launcher.stop("stopped by Slurm: out of time or preempted")

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        self.launcher.stop("terminated by Slurm: cancelled, preempted or out of time")

    def _tick(self) -> None:
        self.launcher.hurried = time.monotonic() > self.deadline

    def _gave_up(self, spec: RunSpec) -> bool:
        """Return whether Slurm has requeued this run without progress as often as allowed, and record that."""
        folder = RunFolder(spec.folder(self.launcher.attempt.out))
        status = folder.last_status()
        if status.state not in (State.RUNNING, State.INTERRUPTED) or not status.gave_up(self.terms.profile.retries):
            return False
        cause = f"{status.stalled} attempts in a row finished no epoch; the last: {status.cause or 'no word'}"
        folder.write_status(replace(status, state=State.FAILED, cause=cause, updated=time.time()))
        return True

    @staticmethod
    def _is_unfinished(folder: RunFolder) -> bool:
        return folder.last_status().state not in (State.DONE, State.FAILED, State.CANCELLED)
