"""A tiny job that finds out what a cluster can do, from the machines where it matters."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmark.errors import UserError
from benchmark.plan.snapshot import take_snapshot
from benchmark.records import to_json, write_atomic
from benchmark.slurm import scheduler
from benchmark.slurm.preflight import check_cluster
from benchmark.slurm.profile import Profile, Request
from benchmark.slurm.sbatch import array_of
from benchmark.slurm.scheduler import SilentError
from benchmark.slurm.task import job_number
from benchmark.train.attempt import STOP_SIGNAL

SIGNAL_PATIENCE = 30.0
"""Seconds that the job waits for the signal that the driver has Slurm send."""
FILES_PATIENCE = 60.0
"""Seconds that file systems may take to show one machine what another has written."""


@dataclass(frozen=True)
class Finding:
    """One thing that a cluster can or cannot do."""

    name: str
    verdict: str
    """`good`; `missing` for what runs need; `without` for what they can do without."""
    detail: str

    @property
    def colour(self) -> str:
        return {"good": "green", "missing": "red", "without": "yellow"}[self.verdict]


@dataclass(frozen=True)
class Probe:
    """The callable of the job: looks around, writes what it found, and waits for a signal."""

    folder: str
    gpus: int

    def __call__(self) -> None:
        folder = Path(self.folder)
        told: list[int] = []
        signal.signal(STOP_SIGNAL, lambda number, _: told.append(number))
        try:
            with FileLock(folder / "lock", timeout=0):
                locked = True
        except Timeout:
            locked = False
        found = {
            "host": os.environ.get("SLURMD_NODENAME", platform.node()),
            "python": platform.python_version(),
            "executable": sys.executable,
            "gpus": _gpu_names() if self.gpus else [],
            "clock": time.time(),
            "token": (folder / "token").read_text(encoding="utf-8"),
            "lock_was_free": locked,
            "scontrol": shutil.which("scontrol") is not None and _answers("scontrol", "show", "job", job_number()),
        }
        write_atomic(folder / "found.json", to_json(found))
        end = time.monotonic() + SIGNAL_PATIENCE
        while not told and time.monotonic() < end:
            time.sleep(0.1)
        write_atomic(folder / "signal.json", to_json({"told": bool(told)}))


def _gpu_names() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _answers(*command: str) -> bool:
    try:
        scheduler.ask(*command)
    except SilentError:
        return False
    return True


def check_profile(out: Path, cluster: str, profile: Profile, limit: float) -> Iterator[Finding]:
    """Submit the tiny job and yield what it and this machine find.

    Args:
        out: where runs would go.
        cluster: name of the profile.
        profile: what to prove.
        limit: seconds to wait for the job.
    """
    request = Request(**{**profile.model_dump(include=set(Request.model_fields)), "time": "10m"})
    try:
        check_cluster(out, [request])
    except UserError as error:
        yield from (Finding("request", "missing", str(problem)) for problem in error.problems)
        return
    yield Finding("request", "good", f"{cluster}: the cluster takes it")
    folder = out / ".jobs" / "check" / f"{time.time_ns()}"
    token = os.urandom(8).hex()
    write_atomic(folder / "token", token.encode())
    snapshot = take_snapshot(out / ".snapshots", [])
    executor = array_of(folder, "bench-check", request, profile, str(snapshot.path))
    with FileLock(folder / "lock", timeout=0):  # so that the job sees whether locks reach it
        job = executor.submit(Probe(str(folder), request.gpus)).job_id
        found = _await(folder / "found.json", job, limit)
    if found is None:
        state = scheduler.look_up([job], scheduler.queue())[job]
        log = folder / job / f"{job}_0_log.out"
        said = (
            scheduler.last_words(log.read_text(errors="replace")) if log.exists() else "no output: not a shared folder?"
        )
        yield Finding("job", "missing", f"{job} is {state.state} {state.reason}; {said}".strip())
        if not state.is_over:
            scheduler.cancel([job])
        return
    yield from _findings(found, token, request)
    yield from _signals(folder, job)
    yield from _accounting(job)


def _await(path: Path, job: str, limit: float) -> dict[str, Any] | None:
    """Wait for a file of a job; None when the job is over without it, or the limit has passed."""
    end = time.monotonic() + limit
    over_since = float("inf")
    while time.monotonic() < end:
        if path.exists():
            content: dict[str, Any] = json.loads(path.read_bytes())
            return content
        if scheduler.look_up([job], scheduler.queue())[job].is_over:
            over_since = min(over_since, time.monotonic())
        if time.monotonic() - over_since > FILES_PATIENCE / 10:
            return None
        time.sleep(1.0)
    return None


def _findings(found: dict[str, Any], token: str, request: Request) -> Iterator[Finding]:
    yield Finding("job", "good", f"ran on {found['host']}")
    same = found["python"] == platform.python_version()
    yield Finding("python", "good" if same else "missing", f"{found['python']} at {found['executable']}")
    if request.gpus:
        enough = len(found["gpus"]) >= request.gpus
        names = ", ".join(found["gpus"]) or "torch sees none"
        yield Finding("gpu", "good" if enough else "missing", f"{names}; asked for {request.gpus}")
    shared = found["token"] == token
    yield Finding("shared folder", "good" if shared else "missing", "the job reads and writes the output folder")
    lock = Finding("locks", "good", "a lock held here is seen there")
    if found["lock_was_free"]:
        lock = Finding("locks", "without", "locks do not reach other machines; heartbeats show which runs are at work")
    yield lock
    apart = abs(found["clock"] - time.time())
    yield Finding("clocks", "good" if apart < 30 else "missing", f"{apart:.0f} s apart, the job's answer included")
    words = "jobs put themselves back into the queue" if found["scontrol"] else "the driver submits again instead"
    yield Finding("scontrol on nodes", "good" if found["scontrol"] else "without", words)


def _signals(folder: Path, job: str) -> Iterator[Finding]:
    try:
        scheduler.ask("scancel", f"--signal={STOP_SIGNAL.name.removeprefix('SIG')}", job)
    except SilentError as silence:
        yield Finding("signals", "without", str(silence))
        return
    heard = _await(folder / "signal.json", job, 2 * SIGNAL_PATIENCE)
    if heard and heard["told"]:
        yield Finding("signals", "good", "the job hears the signal that comes before its time is up")
    else:
        yield Finding("signals", "without", "the job heard none: what is lost at a time limit is the epoch in hand")


def _accounting(job: str) -> Iterator[Finding]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if job in scheduler.accounts_of([job]):
            yield Finding("sacct", "good", "knows the job")
            return
        if not _answers("sacct", "--noheader", f"--jobs={job}"):
            break
        time.sleep(0.5)
    yield Finding("sacct", "without", "no accounting; the queue and heartbeats tell what became of jobs")
