"""Slurm's own commands, called in bulk: never one call for each job."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
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

INHERITED = ("PMI", "SACCT_", "SALLOC_", "SBATCH_", "SCANCEL_", "SINFO_", "SLURM_", "SQUEUE_", "SRUN_")
"""How variables begin that change what Slurm's commands do: those of a job that we are in, and a user's defaults."""
KEPT = {"SLURM_CLUSTERS", "SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"}
"""Those that say which cluster is meant, and who we are."""
DEFAULTS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CLUSTERS": "clusters",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_RESERVATION": "reservation",
}
"""Those with which a user says how all jobs are paid and placed, each kept unless a request says that option itself."""
LIMIT = re.compile(r"\w*Submit\w*Limit\w*|MaxJobCount|temporarily unable to accept job")
"""What Slurm says of a limit of submitted jobs, which is free again once some of them are over."""

AWAY = re.compile(r"Unable to contact slurm controller|Socket timed out|Connection refused|no answer in")
"""What Slurm's commands say when nobody listens."""


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
    comment: str = ""

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


def surroundings(said: Collection[str] = ()) -> dict[str, str]:
    """Return the environment without what would change a request behind its back.

    Args:
        said: long names of the options that the request says itself.
    """
    kept = KEPT | {name for name, option in DEFAULTS.items() if option not in said}
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(INHERITED)}


@contextmanager
def clean_surroundings(said: Collection[str]) -> Generator[None]:
    """Give this process that environment for a while, for a library that starts Slurm's commands itself."""
    before = dict(os.environ)
    for name in before.keys() - surroundings(said).keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def ask(*command: str, stdin: str | None = None, said: Collection[str] = ()) -> str:
    """Run a command of Slurm and return what it printed.

    Args:
        command: the command.
        stdin: what it reads.
        said: long names of the options that a request says.

    Raises:
        SilentError: when it is not there, fails or does not return, with its words.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True, text=True, check=False, timeout=PATIENCE, input=stdin, errors="replace",
            env=surroundings(said),
        )  # fmt: skip
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


NOISE = re.compile(r"srun: (error: .*(Exited with exit code|task \d+: )|Force Terminated|Terminating)|submitit INFO")
"""Lines of a job's output that only say that it has ended, or begun."""


def last_words(text: str) -> str:
    """Return the last line of a job's output that may say why it ended."""
    telling = [line for line in text.splitlines() if not NOISE.match(line.strip())]
    return last_line("\n".join(telling)) or last_line(text)


def queue() -> dict[str, Job]:
    """Return every job of ours that Slurm still knows, by id; elements of arrays as `1234_5`.

    Raises:
        SilentError: when the queue cannot be read.
    """
    listed = ask("squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}",
                 "--format=%i|%T|%N|%j|%k|%r")  # fmt: skip
    jobs = {}
    for line in listed.splitlines():
        number, state, node, name, comment, reason = (part.strip() for part in line.split("|", 5))
        jobs[number] = Job(state, "" if reason == "None" else reason, node, name, comment)
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


def name_job(number: str, name: str) -> None:
    """Rename a job in the queue, where that is possible from here."""
    with suppress(SilentError):
        ask("scontrol", "update", f"jobid={number}", f"name={name}")


def set_throttle(number: str, throttle: int) -> None:
    """Let another number of jobs of an array work at a time.

    Raises:
        SilentError: when Slurm does not take it.
    """
    ask("scontrol", "update", f"jobid={number}", f"arraytaskthrottle={throttle}")


def max_array_size() -> int:
    """Return how many jobs an array may have on this cluster; 1 where it takes no arrays.

    Raises:
        SilentError: when Slurm does not say.
    """
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", ask("scontrol", "show", "config"), re.MULTILINE)
    if found is None:
        raise SilentError("scontrol show config: no MaxArraySize")
    return max(int(found.group(1)), 1)


def time_left(number: str) -> tuple[int, int] | None:
    """Return the time limit of a job at work and what is left of it, in seconds; None where that cannot be known."""
    try:
        limit, _, left = last_line(ask("squeue", "--noheader", f"--jobs={number}", "--format=%l|%L")).partition("|")
    except SilentError:
        return None
    found = seconds(limit), seconds(left)
    return None if found[0] is None or found[1] is None else (found[0], found[1])


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
    found = seconds(limit)
    return None if found is None else found // 60


def seconds(text: str) -> int | None:
    """Read a time as Slurm prints it, [days-]hours:minutes:seconds or minutes:seconds; None for infinite and others."""
    if not re.fullmatch(r"[\d:-]+", text):
        return None
    days, _, clock = text.rpartition("-")
    hours, minutes, rest = [0, 0, *map(int, clock.split(":"))][-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest
