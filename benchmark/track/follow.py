"""The mirror itself: follows the files of runs and passes them on to the tools, in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import Timeout

from benchmark.records import RunFolder, RunView, State, view
from benchmark.track.content import conclude, describe, run_id, scalars_of
from benchmark.track.journal import Entry, Ledger, digest_of
from benchmark.track.tensorboard_tracker import TensorBoardTracker
from benchmark.track.tracker import Mirror, Tracker, TrackError
from benchmark.track.wandb_tracker import WandbTracker

log = logging.getLogger(__name__)

TRACKERS: dict[str, type[Tracker]] = {"wandb": WandbTracker, "tensorboard": TensorBoardTracker}
LOOK = 1.0
"""Seconds between two looks at the files."""
LETTING_GO = 2.0
"""Seconds that a process may take to let go of a run that it has finished."""
OVER = (State.DONE, State.FAILED, State.CANCELLED)
"""States that change no more by themselves."""


@dataclass(frozen=True)
class Task:
    """A run to mirror."""

    folder: str
    """Below the output folder."""
    group: str
    started: float = 0.0
    """When the attempt had started that was its last when the command was given: that one's end is not news."""


@dataclass(frozen=True)
class Job:
    """What a mirror is to do."""

    out: str
    trackers: Sequence[str]
    tasks: Sequence[Task]
    upload: bool = False
    """Upload finished runs to a server, instead of following unfinished ones."""
    is_dry: bool = False
    """Only say what would be uploaded."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        content = json.loads(text)
        return cls(**{**content, "tasks": [Task(**task) for task in content["tasks"]]})


class Follower:
    """Keeps one run up to date in one tool."""

    def __init__(self, task: Task, name: str, tracker: Tracker, ledger: Ledger) -> None:
        self.task = task
        self.name = name
        self.tracker = tracker
        self.ledger = ledger
        self.folder = RunFolder(tracker.out / task.folder)
        self.id = run_id(RunView(self.folder))
        self.is_over = False
        self.entry: Entry | None = None
        """How it ended; None until it has, or where another process mirrors the run."""
        self._lock = ledger.lock(name, self.id)
        self._mirror: Mirror | None = None
        self._size = -1

    def step(self, is_last: bool) -> None:
        """Look at the run once; with `is_last`, close its page in whatever state the run is.

        Never raises: what goes wrong is recorded, and the run is left to `bench sync`.
        """
        digest = ""
        try:
            status = self.folder.last_status()
            ended = is_last or (status.state in OVER and status.started != self.task.started)
            if not status.attempts or not self._open():
                self.is_over = is_last
                return
            digest = digest_of(self.folder) if ended else ""
            self._feed()
            if ended:
                self._finish(digest)
        except Exception as error:  # whatever one tool raises must not keep data from the others
            problem = (
                str(error) if isinstance(error, TrackError) else " ".join(f"{type(error).__name__}: {error}".split())
            )
            log.error("%s %s", self.task.folder, problem, exc_info=not isinstance(error, TrackError))
            self._close(Entry(digest, problem=problem))

    def _open(self) -> bool:
        """Begin the run's page unless that has happened; False while another process mirrors the run."""
        if self._mirror is None:
            try:
                self._lock.acquire()
            except Timeout:
                return False
            run = view(self.folder)
            if not run.spec:
                self._lock.release()
                return False
            self._mirror = self.tracker.open(describe(run, self.task.group, self.task.folder))
        return True

    def _feed(self) -> None:
        """Send the tool the epochs that it does not have."""
        assert self._mirror is not None
        size = self.folder.size_of("history.jsonl")["history.jsonl"]
        if size == self._size:
            return
        for epoch, line in enumerate(self.folder.read_history()):
            if epoch >= self._mirror.num_epochs:
                self._mirror.add(epoch, scalars_of(line))
        self._size = size

    def _finish(self, digest: str) -> None:
        assert self._mirror is not None
        outcome = self._mirror.finish(conclude(view(self.folder)))
        self._close(Entry(digest, outcome.place, outcome.is_remote, outcome.reason, self.tracker.target))

    def _close(self, entry: Entry) -> None:
        self.is_over, self.entry = True, entry
        self.ledger.note(self.name, self.id, entry)
        if entry.problem:
            tell_run(self.folder, f"{self.tracker.title}: {entry.problem}")
        self._lock.release()


def tell_run(folder: RunFolder, words: str) -> None:
    """Add a line to the log of a run, once no process, on this machine or another, may still be writing there."""
    end = time.monotonic() + LETTING_GO
    while folder.is_alive():
        if time.monotonic() > end:
            return
        time.sleep(0.1)
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    with suppress(OSError), folder.log.open("a", encoding="utf-8") as stream:
        stream.write(f"{stamp},000 WARNING {words}\n")


def follow(job: Job, over: threading.Event) -> None:
    """Mirror the runs of a job while they are at work; return soon after `over` is set."""
    ledger = Ledger(Path(job.out))
    followers: list[Follower] = []
    for name in job.trackers:
        try:
            tracker = TRACKERS[name](Path(job.out))
            followers += [Follower(task, name, tracker, ledger) for task in job.tasks]
        except TrackError as error:
            for task in job.tasks:
                ledger.note(name, id_of(task), Entry("", problem=str(error)))
    trackers = {follower.tracker for follower in followers}
    while followers:
        is_last = over.is_set()
        began = time.monotonic()
        for follower in followers:
            follower.step(is_last)
            ledger.beat()
        followers = [follower for follower in followers if not follower.is_over]
        over.wait(max(LOOK, 10 * (time.monotonic() - began)))  # thousands of files are not looked at all the time
    for tracker in trackers:
        tracker.close()


def upload(job: Job) -> Iterator[Mapping[str, str]]:
    """Upload finished runs to their tool's server, and yield the outcome of each."""
    ledger = Ledger(Path(job.out))
    for name in job.trackers:
        try:
            tracker = TRACKERS[name](Path(job.out), must_upload=True)
        except TrackError as error:
            yield from ({"folder": task.folder, "outcome": FAILED, "detail": str(error)} for task in job.tasks)
            continue
        for task in job.tasks:
            outcome, detail = _upload(Follower(task, name, tracker, ledger), job.is_dry)
            yield {"folder": task.folder, "outcome": outcome, "detail": detail}
        tracker.close()


def _upload(follower: Follower, is_dry: bool) -> tuple[str, str]:
    run = view(follower.folder)
    before = follower.ledger.entry(follower.name, follower.id)
    if run.problem:
        return FAILED, run.problem
    if not run.status.attempts or run.status.state is State.RUNNING:
        return WAITS, f"{run.status.state}, left until it is over"
    if before and is_uploaded(before, run, follower.tracker.target):
        return THERE, before.place
    if is_dry:
        return MISSING, follower.tracker.target
    follower.step(is_last=True)
    if follower.entry is None:
        return WAITS, "another process mirrors it"
    return UPLOADED if follower.entry.is_remote else FAILED, follower.entry.problem or follower.entry.place


UPLOADED, THERE, MISSING, WAITS, FAILED = "uploaded", "there", "to upload", "waits", "failed"
"""Outcomes of an upload."""


def is_uploaded(entry: Entry, run: RunView, target: str) -> bool:
    """Return whether all of a run has been seen at its target."""
    return entry.is_remote and entry.target == target and entry.digest == digest_of(run.folder)


def id_of(task: Task) -> str:
    return run_id(RunView(RunFolder(Path(task.folder))))


def main() -> None:
    """Do the job that the first line of the standard input describes; its end says that the sweep is over."""
    os.nice(19)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    job = Job.from_json(sys.stdin.readline())
    if job.upload:
        for line in upload(job):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
    else:
        over = threading.Event()

        def listen() -> None:
            sys.stdin.read()
            over.set()

        threading.Thread(target=listen, daemon=True).start()
        follow(job, over)
    sys.stdout.flush()
    os._exit(0)  # without W&B's own farewell, which may wait for a network
