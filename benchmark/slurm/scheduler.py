"""Slurm's own commands, called in bulk: never one call for each job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.errors import Problem, UserError

PATIENCE = 60
"""Seconds after which a command of Slurm counts as unanswered."""

ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled in Slurm (scancel)",
    "COMPLETED": "its job ended",
    "DEADLINE": "its deadline passed",
    "FAILED": "its job failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory; ask for more in the cluster's profile",
    "PREEMPTED": "preempted",
    "REVOKED": "its job was revoked",
    "TIMEOUT": "out of time",
}
"""States of jobs that are over, in words. Every other state is a job that waits, works or will be put back."""
GONE = "GONE"
"""State of a job that Slurm has forgotten."""


class SilentError(Exception):
    """Slurm does not answer, which says nothing about its jobs."""


@dataclass(frozen=True)
class Job:
    """A job, or one element of a job array, as Slurm sees it."""

    state: str
    reason: str = ""
    """Why it waits, in Slurm's words."""
    node: str = ""
    name: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in ENDED or self.state == GONE

    @property
    def is_pending(self) -> bool:
        return self.state == "PENDING"

    @property
    def words(self) -> str:
        """Its outcome."""
        node = f" on {self.node}" if self.node else ""
        return ENDED.get(self.state, "its job is gone from the queue") + node


@dataclass(frozen=True)
class Partition:
    """A part of a cluster."""

    minutes: int | None
    """Longest job; None for no limit."""
    is_default: bool


def ask(*command: str, stdin: str | None = None) -> str:
    """Run a command of Slurm and return what it printed.

    Raises:
        SilentError: when it is not there, fails or does not return, with its words.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE, input=stdin, errors="replace"
        )
    except FileNotFoundError:
        raise SilentError(f"{command[0]}: not on PATH") from None
    except subprocess.TimeoutExpired:
        raise SilentError(f"{command[0]}: no answer in {PATIENCE} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise SilentError("; ".join(lines[-3:]) or f"{command[0]}: exit code {done.returncode}")
    return done.stdout


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def queue() -> dict[str, Job]:
    """Return every job of ours that Slurm still knows, by id; elements of arrays as `1234_5`.

    Raises:
        SilentError: when the queue cannot be read.
    """
    listed = ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}",
                 "--format=%i|%T|%N|%j|%r")  # fmt: skip
    jobs = {}
    for line in listed.splitlines():
        number, state, node, name, reason = (part.strip() for part in line.split("|", 4))
        jobs[number] = Job(state, "" if reason == "None" else reason, node, name)
    return jobs


def accounts_of(numbers: Iterable[str]) -> dict[str, Job]:
    """Return what accounting knows about jobs; nothing where there is no accounting."""
    wanted = sorted({number.partition("_")[0] for number in numbers})
    if not wanted:
        return {}
    try:
        listed = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={','.join(wanted)}",
                     "--format=JobID,State,NodeList,JobName")  # fmt: skip
    except SilentError:
        return {}
    jobs = {}
    for line in listed.splitlines():
        number, state, node, name = line.split("|", 3)
        jobs[number] = Job(state.split()[0], "", "" if node == "None assigned" else node, name)
    return jobs


def look_up(numbers: Iterable[str], known: Mapping[str, Job]) -> dict[str, Job]:
    """Return the state of jobs, from the queue where it lists them, else from accounting, else as gone."""
    wanted = set(numbers)
    missing = wanted - set(known)
    booked = accounts_of(missing)
    return {number: known.get(number) or booked.get(number) or Job(GONE) for number in wanted}


def cancel(numbers: Sequence[str]) -> None:
    """Cancel jobs, a few hundred with each call.

    Raises:
        SilentError: when Slurm does not take it.
    """
    for start in range(0, len(numbers), 200):
        ask("scancel", *numbers[start : start + 200])


def requeue(number: str) -> bool:
    """Put a job back into the queue; False where that is not possible from here."""
    try:
        ask("scontrol", "requeue", number)
    except SilentError:
        return False
    return True


def partitions() -> dict[str, Partition]:
    """Return the partitions of the cluster by name.

    Raises:
        UserError: when there is no cluster to ask.
    """
    if shutil.which("sbatch") is None:
        advice = "Give the command on the cluster's login node, or leave out --on slurm."
        raise UserError(Problem("--on slurm", "sbatch on PATH", "none", advice))
    try:
        listed = ask("sinfo", "--noheader", "--format=%P|%l")
    except SilentError as silence:
        advice = "Is SLURM_CONF right, and does sinfo work?"
        raise UserError(Problem("--on slurm", "a cluster that answers", str(silence), advice)) from None
    found = {}
    for line in listed.splitlines():
        name, limit = line.split("|")
        found[name.rstrip("*")] = Partition(_minutes(limit), name.endswith("*"))
    return found


def _minutes(limit: str) -> int | None:
    """Read a limit as Slurm prints it: [days-]hours:minutes:seconds, minutes:seconds or infinite."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return None
    days, _, clock = limit.rpartition("-")
    parts = [0, 0, *map(int, clock.split(":"))]
    hours, rest = parts[-3:-1]
    return int(days or 0) * 24 * 60 + hours * 60 + rest
