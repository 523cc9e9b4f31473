"""What a job of ours does on its machine: train the runs of one line of a plan, and stop in time."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from benchmark.launch.launcher import Launcher, Resources
from benchmark.plan.spec import RunSpec
from benchmark.records import RunFolder, State, Status, scheduler_job
from benchmark.slurm.scheduler import name_job, requeue, time_left
from benchmark.slurm.submission import Submission, Terms
from benchmark.train.attempt import STOP_SIGNAL

MARGIN = 20.0
"""Seconds before the end of a job's time at which its runs are stopped even in the middle of an epoch; half of the
notice where that is less."""
SLURM_EARLY = 90.0
"""Seconds by which Slurm may be early with its notice, since it looks at the clock now and then only."""


def job_name(specs: Iterable[RunSpec]) -> str:
    """Return the name of a job that trains these runs, `mb-<data set>-<method>`, for people who look at a queue."""
    specs = list(specs)
    parts = {
        "data sets": sorted({spec.dataset.name for spec in specs}),
        "methods": sorted({spec.method.name for spec in specs}),
    }
    words = [names[0] if len(names) == 1 else f"{len(names)}-{kind}" for kind, names in parts.items()]
    return re.sub(r"[^\w.-]+", "-", "-".join(["mb", *words]))


def note_limit(folder: RunFolder, limit: float, job: str) -> None:
    """Record that a job's time limit ended a run's attempt before it had finished an epoch."""
    status = folder.last_status()
    if status.job == job and status.state is State.INTERRUPTED and status.stalled:
        folder.write_status(replace(status, cause=limit_words(status, limit, status.updated - status.started)))


def limit_words(status: Status, limit: float, spent: float) -> str:
    """Say what a time limit below the length of an epoch means.

    Args:
        status: of a run that was stopped in the first epoch of an attempt.
        limit: of its job, in seconds.
        spent: on that epoch, in seconds.
    """
    takes = f", which takes more than {shown(spent)}" if spent >= 1 else ""
    return (
        f"out of time: a job's limit of {shown(limit)} ended before epoch {status.epoch + 1} of {status.epochs} did"
        f"{takes}; give it more with time: in the cluster's profile"
    )


def shown(seconds: float) -> str:
    """Write a duration as a person would."""
    whole = int(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min" if whole < 7200 else f"{whole / 3600:.1f} h"


@dataclass(frozen=True)
class Task:
    """The callable that submitit hands to a job."""

    submission: str
    index: int

    def __call__(self) -> None:
        submission = Submission(Path(self.submission))
        if not submission.is_closed:
            specs = submission.specs_of(self.index)
            name_job(job_number(), job_name(specs))  # an array has one name for all its jobs
            _Watch(submission.terms, specs).train()


def job_number() -> str:
    """Return the id of the current job, such as 1234_5; empty outside Slurm."""
    return scheduler_job().get("id", "")


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
        self.asked = False
        """Whether Slurm has been asked how much time is left."""
        self.limit: int | None = None
        """Seconds of the job's time limit, once that is known to be why it has to leave."""

    def train(self) -> None:
        for number in (STOP_SIGNAL, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # Slurm signals every process of a job: helpers must outlive workers
        self.launcher.prepare()
        signal.signal(STOP_SIGNAL, self._told_to_leave)
        signal.signal(signal.SIGTERM, self._terminated)
        self.launcher.launch([spec for spec in self.specs if not self._gave_up(spec)], self._tick)
        if self.limit is not None:
            for folder in self.folders:
                note_limit(folder, self.limit, self.launcher.attempt.job)
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
        if self.was_told and not self.asked:
            self.asked = True
            known = time_left(self.launcher.attempt.job)
            if known is not None and known[1] <= self.terms.profile.notice + SLURM_EARLY:
                self.limit = known[0]
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
