"""What was handed to Slurm: one folder for each job array, written before it is submitted and never lost.

<out>/.jobs/<day>/<token>/
    plan.jsonl     one line for each job: its runs
    terms.json     how they are trained; its presence says that submission was about to begin
    job            the id that Slurm gave
    throttle       how many of its jobs may work at a time, where that has changed since
    closed         why nothing of it is to be done any more
    <job id>/      submitit's files and the job's output
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmark.bounded import parse_json, read_bytes
from benchmark.errors import UserError
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan.spec import RunSpec
from benchmark.records import to_json, write_atomic
from benchmark.settings import Settings, parse_settings
from benchmark.slurm.profile import Profile, Request
from benchmark.slurm.scheduler import Job, look_up

LOCK_PATIENCE = 300.0
"""Seconds to wait for another driver that is just submitting."""
MAX_PLAN = 2**30
"""Most bytes of a plan: one of a hundred thousand runs has a fifth of it."""


class Turn(Settings):
    """When the jobs of an array may work."""

    throttle: int = 0
    """How many of them at a time; 0 for all."""
    after: str = ""
    """Id of the job that must be over before."""


class Terms(Settings):
    """How the runs of a submission are trained."""

    options: LaunchOptions
    """As given, with absolute paths."""
    cluster: str
    """Name of the profile."""
    profile: Profile
    request: Request
    snapshot: str
    """Folder of the code that the jobs run."""
    created: float
    name: str = ""
    """Of its jobs."""
    turn: Turn | None = None
    """When they may work; None in submissions from before sweeps kept to one limit."""


@dataclass(frozen=True)
class PlannedRun:
    """A run as a submission lists it, without what only its worker needs."""

    folder: str
    """Below the output folder."""
    dataset: str
    method: str
    seed: int


@dataclass(frozen=True)
class Submission:
    """One job array, or one job."""

    path: Path

    @property
    def comment(self) -> str:
        """The comment of its jobs, by which they are found should their id have been lost."""
        return f"modalbench:{self.path.name}"

    def is_of(self, job: Job) -> bool:
        """Return whether a job is one of its own; before jobs had comments, their name told."""
        return job.comment == self.comment or job.name == f"bench-{self.path.name}"

    @cached_property
    def problem(self) -> str:
        """What of it cannot be read, in words; empty if nothing is wrong. All else here is only for what is sound."""
        for name, read in {"terms.json": lambda: self.terms, "plan.jsonl": lambda: self.plan}.items():
            try:
                read()
            except OSError as error:
                return f"{name}: cannot be read ({error.strerror or error})"
            except UserError as error:
                return f"{name}: damaged (expected {error.problems[0].expected}, got {error.problems[0].got})"
            except ValueError as error:
                return f"{name}: damaged ({' '.join(str(error).split())})"
        return "job: expected a regular file" if (self.path / "job").is_dir() else ""

    @cached_property
    def terms(self) -> Terms:
        return parse_settings(Terms, parse_json(read_bytes(self.path / "terms.json")), str(self.path))

    @cached_property
    def _lines(self) -> list[list[dict[str, Any]]]:
        return [parse_json(line) for line in read_bytes(self.path / "plan.jsonl", MAX_PLAN).splitlines()]

    @cached_property
    def plan(self) -> list[list[PlannedRun]]:
        """The runs of each job.

        Raises:
            OSError, ValueError: when it is damaged.
        """
        try:
            plan = [[_planned(run) for run in line] for line in self._lines]
        except (KeyError, TypeError) as error:
            raise ValueError(f"expected the fields of a run, got {error}") from None
        if not plan or not all(plan):
            raise ValueError("expected a run for each job, got none")
        return plan

    def specs_of(self, task: int) -> list[RunSpec]:
        """Return the runs of one job, to train them."""
        return [parse_settings(RunSpec, run["spec"], str(self.path)) for run in self._lines[task]]

    @property
    def job(self) -> str:
        """The id of its job or array; empty while it has none that can be read: its comment finds it then."""
        try:
            found = read_bytes(self.path / "job").decode(errors="replace").strip()
        except (OSError, ValueError):
            return ""
        return found if found.isdecimal() else ""

    def note_job(self, number: str) -> None:
        write_atomic(self.path / "job", number.encode())

    def number_of(self, task: int) -> str:
        """Return the id of one of its jobs."""
        return f"{self.job}_{task}" if len(self._lines) > 1 else self.job

    @property
    def turn(self) -> Turn:
        """When its jobs may work, as it is now."""
        turn = self.terms.turn or Turn(throttle=self.terms.profile.throttle)
        try:
            return Turn(throttle=int((self.path / "throttle").read_text(encoding="utf-8")), after=turn.after)
        except (OSError, ValueError):
            return turn

    def note_throttle(self, throttle: int) -> None:
        write_atomic(self.path / "throttle", str(throttle).encode())

    def discard(self) -> None:
        """Forget it: Slurm has said that there is no job of it."""
        shutil.rmtree(self.path)

    @property
    def is_closed(self) -> bool:
        return (self.path / "closed").exists()

    def close(self, reason: str) -> None:
        """Keep every job of it, even one that starts late, from working on it."""
        write_atomic(self.path / "closed", reason.encode())

    def log_of(self, number: str) -> Path:
        """Return where a job's own output is; what a run prints is in the run's log."""
        return self.path / number / f"{number}_0_log.out"


@dataclass(frozen=True)
class Assignment:
    """A job whose task it is to train a run."""

    submission: Submission
    task: int
    place: int
    """Which of the job's runs it is."""
    number: str
    job: Job

    def spec(self) -> RunSpec:
        """Return the run, to train it."""
        return self.submission.specs_of(self.task)[self.place]

    @property
    def log(self) -> Path:
        return self.submission.log_of(self.number)


class Registry:
    """The submissions of an output folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out / ".jobs"
        self._known: dict[Path, Submission] = {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other drivers from deciding at the same time what is missing."""
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / ".lock", timeout=LOCK_PATIENCE):
            yield

    def all(self) -> list[Submission]:
        """Return every submission that there was and that can be read, oldest first."""
        return [one for one in self._all() if not one.problem]

    def open(self) -> list[Submission]:
        """Return the submissions of which something may still be at work, oldest first, without damaged ones."""
        return [one for one in self._all() if not (one.is_closed or one.problem)]

    def damaged(self, also_closed: bool = False) -> list[Submission]:
        """Return the submissions that cannot be read, oldest first: their runs are as their folders tell."""
        return [one for one in self._all() if (also_closed or not one.is_closed) and one.problem]

    def damage(self, also_closed: bool = False) -> list[str]:
        """Return a line for each submission that cannot be read."""
        return [
            f"damaged: {one.path.relative_to(self.out)}/{one.problem}; its runs are as their folders tell"
            for one in self.damaged(also_closed)
        ]

    def _all(self) -> list[Submission]:
        found = sorted(path.parent for path in self.path.glob("*/*/terms.json"))
        self._known = {path: self._known.get(path) or Submission(path) for path in found}
        return list(self._known.values())

    def waiting(self) -> dict[str, str]:
        """Return why runs that are asked for are not submitted yet, by folder."""
        try:
            found = parse_json(read_bytes(self.path / "waiting.json"))
        except (OSError, ValueError):
            return {}
        return {folder: str(words) for folder, words in found.items()} if isinstance(found, dict) else {}

    def note_waiting(self, asked: Iterable[str], why: Mapping[str, str]) -> None:
        """Write down, for the runs that a driver was asked for, which it could not submit yet and why."""
        before = self.waiting()
        now = {folder: words for folder, words in before.items() if folder not in set(asked)} | dict(why)
        if now != before:
            write_atomic(self.path / "waiting.json", to_json(now))

    def log_of(self, number: str) -> Path | None:
        """Return where a job's own output is; None for a job that is not one of these."""
        return next((path for path in self.path.glob(f"*/*/{number}/{number}_0_log.out")), None)

    def add(self, terms: Mapping[str, Any], tasks: Sequence[Sequence[tuple[str, RunSpec]]]) -> Submission:
        """Write down a submission that is about to be made.

        Args:
            terms: the fields of `Terms`.
            tasks: for each job its runs, each with its folder below the output folder.
        """
        token = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(4)
        submission = Submission(self.path / token[:8] / token)
        lines = [
            json.dumps([
                {"folder": folder, "dataset": spec.dataset.label, "method": spec.method.label, "seed": spec.seed,
                 "spec": spec.model_dump(mode="json")}
                for folder, spec in task
            ]).encode()
            for task in tasks
        ]  # fmt: skip
        write_atomic(submission.path / "plan.jsonl", b"\n".join(lines) + b"\n")
        write_atomic(submission.path / "terms.json", to_json(Terms(**terms).model_dump(mode="json")))
        return submission


def _planned(run: Mapping[str, Any]) -> PlannedRun:
    """Return a run of a plan; `ValueError`, `KeyError` or `TypeError` where it is none."""
    found = PlannedRun(run["folder"], run["dataset"], run["method"], run["seed"])
    words = found.folder, found.dataset, found.method
    if not (all(isinstance(one, str) for one in words) and isinstance(found.seed, int) and run["spec"].items()):
        raise TypeError("other kinds of values")
    if Path(found.folder).is_absolute() or ".." in Path(found.folder).parts:
        raise ValueError("expected a folder below the output folder")
    return found


def assignments(submissions: Sequence[Submission], queue: Mapping[str, Job]) -> dict[str, Assignment]:
    """Return which job is to train which run, by folder; of several jobs the one that is not over, else the latest."""
    numbers = {s: [s.number_of(task) for task in range(len(s.plan))] for s in submissions if s.job}
    states = look_up((number for each in numbers.values() for number in each), queue)
    found: dict[str, Assignment] = {}
    for submission, each in numbers.items():
        for task, (number, runs) in enumerate(zip(each, submission.plan, strict=True)):
            for place, run in enumerate(runs):
                if run.folder not in found or found[run.folder].job.is_over:
                    found[run.folder] = Assignment(submission, task, place, number, states[number])
    return found


def adopt(submission: Submission, queue: Mapping[str, Job]) -> bool:
    """Find the job of a submission whose driver died before it recorded the id; False where there is none."""
    numbers = {number.partition("_")[0] for number, job in queue.items() if submission.is_of(job)}
    if numbers:
        submission.note_job(numbers.pop())
    return bool(numbers) or bool(submission.job)
