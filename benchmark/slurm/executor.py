"""Trains runs on a Slurm cluster: submits what is missing, watches, and submits again what died.

The state of a run is in its folder; what Slurm was given is in the registry. A driver keeps nothing
to itself, so it may die at any moment, and the next one goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark.errors import Problem, Problems, UserError
from benchmark.launch.executors import Executor, quiet
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan.snapshot import Snapshot, take_snapshot
from benchmark.plan.spec import RunSpec, keep_spec
from benchmark.records import RunFolder, RunView, State, Status
from benchmark.registry import DATASETS, METHODS
from benchmark.settings import Settings, parse_settings
from benchmark.slurm import scheduler
from benchmark.slurm.board import PUT_BACK_BY_SLURM, give_up, note_end, read_board
from benchmark.slurm.cancel import cancel_runs
from benchmark.slurm.overview import active_jobs, overview
from benchmark.slurm.preflight import check_cluster
from benchmark.slurm.profile import Profile, Request, check_names, load_profile
from benchmark.slurm.sbatch import LimitError, submit
from benchmark.slurm.scheduler import SilentError
from benchmark.slurm.submission import Assignment, Registry, Submission, Turn
from benchmark.slurm.task import job_name
from benchmark.slurm.turns import Turns

FILES_PATIENCE = 30.0
"""Seconds that the output of a job that failed may take to be seen here."""
LIMIT_POLLS = 6
"""Looks at the queue after which a limit of submitted jobs is tried again, although none of ours is over."""

Tasks = Sequence[Sequence[tuple[str, RunSpec]]]
"""The runs of each job of an array, each with its folder below the output folder."""


class Known(Settings):
    """What is on record of a sweep, to go on with it as it was submitted. Paths are below the output folder."""

    cluster: str
    profile: Profile
    snapshot: str
    plugins: dict[str, str]
    """Where the copy of each plugin file is, by the path of the original."""


class SlurmExecutor(Executor):
    """Job arrays, one for each kind of request, watched until every run is done or failed."""

    places = "CLUSTER"
    outlives = True
    farewell = "No longer watching; jobs go on. bench status, bench wait and bench cancel know them."

    def __init__(self, options: LaunchOptions, tell: Callable[[str], None] = quiet) -> None:
        super().__init__(options, tell)
        self.registry = Registry(options.out)
        self.cluster = ""
        """Name of the profile."""
        self.profile = Profile()
        """What to ask for."""
        self.snapshot = Snapshot(Path(), {})
        """The code to run."""
        self.retry_failed = True
        """Whether to train again what has failed or was cancelled before."""
        self._ours: set[str] = set()
        """Folders of runs that have been at work, or submitted, since this driver began."""
        self._told: set[str] = set()
        self._unfinished: dict[str, RunSpec] = {}
        """What is still to be brought to its end, by folder."""
        self._doubtful: set[str] = set()
        """Jobs that seemed to be over when last looked at, but that Slurm may have put back."""
        self._unheard: dict[str, float] = {}
        """Jobs that failed without output, and when that was first seen."""
        self._full: tuple[int, float] | None = None
        """How many of our jobs there were when Slurm took no more, and when to try again in any case."""

    def prepare(self, specs: Sequence[RunSpec]) -> dict[str, Any]:
        options = self.options
        typed = {"per_gpu": options.per_gpu, "retries": options.retries, "throttle": options.jobs}
        changes = {key: value for key, value in typed.items() if value is not None}
        self.tell("asking the cluster whether it takes these runs")
        problems = Problems()
        self.cluster, self.profile = load_profile(options.cluster, options.place, problems, changes)
        methods = {*METHODS.known(), *(spec.method.name for spec in specs)}
        datasets = {*DATASETS.known(), *(spec.dataset.name for spec in specs)}
        with problems.collect():
            check_names(self.profile, methods, datasets, f"cluster {self.cluster}")
        requests = {request.model_dump_json(): request for request in map(self.profile.request_for, specs)}
        with problems.collect():
            check_cluster(options.out, requests.values())
        problems.raise_any()
        sources = [p.source for spec in specs for p in (spec.method, spec.dataset) if p.source.endswith(".py")]
        self.snapshot = take_snapshot(options.out / ".snapshots", sources)
        known = Known(
            cluster=self.cluster,
            profile=self.profile,
            snapshot=str(self.snapshot.path.relative_to(options.out)),
            plugins={
                source: str(Path(copy).relative_to(options.out)) for source, copy in self.snapshot.plugins.items()
            },
        )
        return self._take(known).model_dump(mode="json")

    def _take(self, known: Known) -> Known:
        """Work as it is on record."""
        out = self.options.out
        self.cluster, self.profile = known.cluster, known.profile
        copies = {source: str(out / copy) for source, copy in known.plugins.items()}
        self.snapshot = Snapshot(out / known.snapshot, copies)
        self.at_a_time = max(self.profile.throttle, 1) * self.profile.room(self.profile.per_gpu)
        return known

    def run(self, specs: Sequence[RunSpec]) -> Generator[float]:
        self._unfinished = {self._name(spec): spec for spec in specs}
        if self.options.force:
            self._clear(self._unfinished)
        while self.step() and not self.options.detach:
            yield self.profile.poll

    def resume(self, specs: Sequence[RunSpec], known: Mapping[str, Any]) -> Generator[float]:
        """Go on with the profile and the code that the runs were submitted with."""
        self._take(parse_settings(Known, known, "what is on record of a sweep on Slurm"))
        self.retry_failed = False
        return self.run(specs)

    def overview(self, runs: Mapping[str, RunView]) -> tuple[Mapping[str, RunView], str]:
        return overview(self.options.out, runs)

    def cancel(self, runs: Sequence[RunView]) -> str:
        remarks = self.registry.damage()
        try:
            cancel_runs(self.options.out, runs)
        except SilentError as silence:
            remarks.append(f"Slurm does not answer ({silence}): jobs that wait will end as soon as they start.")
        return "\n".join(remarks)

    def logs(self, run: RunView) -> Sequence[Path]:
        found = self.registry.log_of(run.status.job) if run.status.job else None
        return [found] if found else []

    def step(self) -> bool:
        """Look at queue and folders once and submit what no job works on; return whether anything is unfinished."""
        self._unfinished = self._look(self._unfinished)
        return bool(self._unfinished)

    def _name(self, spec: RunSpec) -> str:
        return str(spec.folder(self.options.out).relative_to(self.options.out))

    def _clear(self, runs: Mapping[str, RunSpec]) -> None:
        for folder, spec in runs.items():
            found = RunFolder(self.options.out / folder)
            if found.path.exists() and not found.is_alive():
                found.clear()
                keep_spec(spec, found)

    def _look(self, unfinished: Mapping[str, RunSpec]) -> dict[str, RunSpec]:
        """Submit what no job works on, and return what is still unfinished."""
        with self.registry.lock():
            for words in self.registry.damage():
                self._tell_once(words)
            try:
                board = read_board(self.registry)
            except SilentError as silence:
                self._tell_once(f"Slurm does not answer ({silence}); trying again")
                return dict(unfinished)
            missing: dict[str, RunSpec] = {}
            left: dict[str, RunSpec] = {}
            for folder, spec in unfinished.items():
                fate = self._fate(RunFolder(self.options.out / folder), board.get(folder))
                if fate is not _DONE:
                    left[folder] = spec
                if fate is _MISSING:
                    missing[folder] = spec
            turns, active = Turns(self.profile.throttle, board), len(active_jobs(board))
            if not missing:
                self._use_room(turns)
                self.registry.note_waiting(unfinished, {})
            elif self._may_be_room(active):
                self._submit(missing, turns, active, is_busy=len(missing) < len(left))
        return left

    def _may_be_room(self, active: int) -> bool:
        """Return whether to try to submit: not while Slurm has as many of our jobs as when it took no more."""
        if self._full is not None and active >= self._full[0] and time.monotonic() < self._full[1]:
            return False
        self._full = None
        return True

    def _use_room(self, turns: Turns) -> None:
        """Let more jobs of an array work where others need less than their share."""
        if widest := turns.widest():
            submission, throttle = widest
            with suppress(SilentError):  # then it goes on with its share
                scheduler.set_throttle(submission.job, throttle)
                submission.note_throttle(throttle)

    def _fate(self, folder: RunFolder, assignment: Assignment | None) -> str:
        """Decide about one run."""
        if folder.is_done():
            return _DONE
        name = str(folder.path.relative_to(self.options.out))
        status = folder.last_status()
        if self._is_at_work(folder, status, assignment):
            self._ours.add(name)
            return _AT_WORK
        if assignment is not None:
            status = note_end(folder, status, assignment)
        final = status.state in (State.FAILED, State.CANCELLED)
        if final and (name in self._ours or not self.retry_failed):
            return _DONE
        if not final and status.gave_up(self.profile.retries) and name in self._ours:
            give_up(folder, status)
            return _DONE
        return _MISSING

    def _is_at_work(self, folder: RunFolder, status: Status, assignment: Assignment | None) -> bool:
        if assignment is not None and not assignment.job.is_over:
            self._doubtful.discard(assignment.number)
            return True
        if folder.is_alive(status):
            return True
        if assignment is None:
            return False
        if assignment.job.state == "FAILED" and not assignment.log.exists():
            return self._wait_for_output(assignment)
        if assignment.job.state not in PUT_BACK_BY_SLURM:
            return False
        seen_before = assignment.number in self._doubtful
        self._doubtful.add(assignment.number)
        return not seen_before

    def _wait_for_output(self, assignment: Assignment) -> bool:
        """Return whether the output of a job that failed may still appear.

        Raises:
            UserError: when it does not: the folder is not shared, and everything that was submitted is cancelled.
        """
        first = self._unheard.setdefault(assignment.number, time.monotonic())
        if time.monotonic() - first > FILES_PATIENCE:
            for submission in self.registry.open():
                with suppress(SilentError):  # they end as soon as they see that it is closed
                    scheduler.cancel([submission.job] if submission.job else [])
                submission.close("the nodes do not see the output folder")
            got = f"{self.options.out}, where the job on {assignment.job.node or 'its node'} could leave no output"
            advice = "Everything that was submitted there is cancelled. bench cluster check looks closer."
            raise UserError(Problem("--out", "a folder that all nodes share", got, advice))
        return True

    def _submit(self, runs: Mapping[str, RunSpec], turns: Turns, active: int, is_busy: bool) -> None:
        """Submit runs, in arrays of one kind of request; what a limit keeps back waits, and is on record.

        Args:
            runs: by folder.
            turns: how many jobs may work.
            active: how many of our jobs there are.
            is_busy: whether there is something at work to wait for.

        Raises:
            UserError: when Slurm refuses and there is nothing at work to wait for.
        """
        self._tell_once(f"submitting {len(runs)} runs")
        arrays = list(self._arrays(runs))
        waiting = dict.fromkeys(runs, "")
        words = ""
        while arrays:
            request, tasks = arrays.pop(0)
            submission = self._add(request, tasks, turns.next(len(tasks), [len(later) for _, later in arrays]))
            try:
                submit(submission)
            except LimitError as limit:
                submission.discard()
                if len(tasks) > 1:
                    half = len(tasks) // 2
                    arrays[:0] = [(request, tasks[:half]), (request, tasks[half:])]
                    continue
                words = str(limit)
                self._full = active, time.monotonic() + LIMIT_POLLS * self.profile.poll
                break
            except SilentError as refusal:
                if not (is_busy or self._ours or scheduler.AWAY.search(str(refusal))):
                    submission.close(str(refusal))
                    raise UserError(Problem("--on slurm", "a job that Slurm takes", str(refusal))) from None
                self._tell_once(f"not everything is submitted yet ({refusal}); trying again")
                words = str(refusal)
                break
            turns.take(submission.job, len(tasks), submission.turn)
            active += len(tasks)
            for folder, _ in (run for task in tasks for run in task):
                self._ours.add(folder)
                del waiting[folder]
            done = f"{len(runs) - len(waiting)} of {len(runs)} runs"
            self.tell(f"submitted {done}; {submission.job}: {len(tasks)} x {submission.terms.name}")
        self._note_waiting(runs, waiting, words)

    def _note_waiting(self, runs: Iterable[str], waiting: Iterable[str], words: str) -> None:
        """Put on record, and tell, what is not submitted yet."""
        why = f"not submitted yet: {words}; bench wait or the same bench run submits it"
        kept = dict.fromkeys(waiting, why)
        self.registry.note_waiting(runs, kept)
        if kept:
            self._tell_once(f"{len(kept)} not submitted yet: {words}; bench wait submits them when there is room")

    def _add(self, request: Request, tasks: Tasks, turn: Turn) -> Submission:
        terms = {
            "options": self.options, "cluster": self.cluster, "profile": self.profile, "request": request,
            "snapshot": str(self.snapshot.path), "created": time.time(), "turn": turn,
            "name": job_name(spec for task in tasks for _, spec in task),
        }  # fmt: skip
        return self.registry.add(terms, tasks)

    def _tell_once(self, words: str) -> None:
        if words not in self._told:
            self._told.add(words)
            self.tell(words)

    def _arrays(self, runs: Mapping[str, RunSpec]) -> Iterator[tuple[Request, Tasks]]:
        """Yield what each array asks for and the runs of its jobs."""
        kinds: dict[str, list[tuple[str, RunSpec]]] = {}
        for folder, spec in runs.items():
            key = self.profile.request_for(spec).model_dump_json()
            kinds.setdefault(key, []).append((folder, in_snapshot(spec, self.snapshot)))
        most = self._array_size()
        for key, members in kinds.items():
            request = Request.model_validate_json(key)
            size = request.room(self.profile.per_gpu)
            tasks = [members[start : start + size] for start in range(0, len(members), size)]
            for start in range(0, len(tasks), most):
                yield request, tasks[start : start + most]

    def _array_size(self) -> int:
        try:
            return min(self.profile.array_size, scheduler.max_array_size())
        except SilentError:  # what is too long is refused in Slurm's words
            return self.profile.array_size


_DONE, _AT_WORK, _MISSING = "done", "at work", "missing"


def in_snapshot(spec: RunSpec, snapshot: Snapshot) -> RunSpec:
    """Return a spec whose plugin files are those of the snapshot; its id is the same."""
    changes: dict[str, Any] = {}
    for name in ("method", "dataset"):
        used = getattr(spec, name)
        if used.source in snapshot.plugins:
            changes[name] = used.model_copy(update={"source": snapshot.plugins[used.source]})
    return spec.model_copy(update=changes)
