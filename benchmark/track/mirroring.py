"""Starts a mirror beside a sweep, restarts it if it dies, and reports its outcome at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.records import RunFolder
from benchmark.settings import split_list
from benchmark.track.follow import FAILED, TRACKERS, Job, Task, id_of
from benchmark.track.journal import Entry, Ledger

STARTS = 3
"""How often a mirror is started in one sweep."""
PATIENCE = 60.0
"""Seconds without a heartbeat after which a mirror is no longer waited for."""
SYNC_PATIENCE = 180.0
"""Seconds that uploading one run may take."""


def parse_trackers(names: str | Sequence[str]) -> list[str]:
    """Return the tools that a list names, as typed with commas or not.

    Raises:
        UserError: with every name that is none.
    """
    problems = Problems()
    found = list(dict.fromkeys(split_list(names) if isinstance(names, str) else names))
    for name in found:
        with problems.collect():
            if name not in TRACKERS:
                raise UserError(Problem("--track", "tracking tools", repr(name), nearest(name, TRACKERS)))
    problems.raise_any()
    return found


def spawn(job: Job, stdout: int | None = None) -> subprocess.Popen[str]:
    """Start a process that does a job. Its standard input stays open; closing it says that the sweep is over.

    Raises:
        OSError: when it cannot be started.
    """
    ledger = Ledger(Path(job.out))
    ledger.path.mkdir(parents=True, exist_ok=True)
    environment: dict[str, str | None] = dict(os.environ)
    for name in job.trackers:
        environment |= TRACKERS[name].environment(Path(job.out))
    with ledger.log.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "benchmark.track"],
            stdin=subprocess.PIPE, stdout=log if stdout is None else stdout, stderr=log, text=True,
            env={key: value for key, value in environment.items() if value is not None},
            start_new_session=True,  # Ctrl-C is for the launcher, which then lets the mirror finish
        )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(job.to_json() + "\n")
    process.stdin.flush()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """End a mirror and its helpers at once; nothing is lost, since the records are the truth."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def sync(job: Job) -> Iterator[Mapping[str, str]]:
    """Upload finished runs and yield the outcome of each, as `follow.upload` does.

    Raises:
        UserError: when it cannot be begun.
    """
    try:
        process = spawn(job, subprocess.PIPE)
    except OSError as error:
        got = f"{job.out} ({error.strerror})"
        raise UserError(Problem("--out", "a folder that can be written", got)) from None
    left = [task.folder for task in job.tasks]
    assert process.stdout is not None
    while True:
        watchdog = threading.Timer(SYNC_PATIENCE, kill, [process])
        watchdog.start()
        line = process.stdout.readline()
        watchdog.cancel()
        if not line:
            break
        result = json.loads(line)
        left.remove(result["folder"])
        yield result
    kill(process)
    log = Ledger(Path(job.out)).log
    yield from ({"folder": folder, "outcome": FAILED, "detail": f"ended unexpectedly, see {log}"} for folder in left)


class Mirroring:
    """A mirror beside a sweep. Nothing that happens to it reaches the runs."""

    def __init__(self, trackers: Sequence[str], out: Path, group: str = "", folders: Sequence[Path] = ()) -> None:
        """Describe what to mirror; starts nothing yet.

        Args:
            trackers: names of tools; with none, there is no mirror.
            out: output folder of the runs.
            group: name of the sweep, if it has one.
            folders: of the runs.
        """
        out = out.absolute()
        self.trackers = trackers
        self.ledger = Ledger(out)
        tasks = [Task(below(path, out), group, RunFolder(path).last_status().started) for path in folders]
        self.job = Job(str(out), trackers, tasks if trackers else [])
        self._began = time.time()
        self._process: subprocess.Popen[str] | None = None
        self._starts = 0
        self._problem = ""

    def ask(self) -> None:
        """Record for `bench sync` that the runs are to be mirrored, now or later."""
        if self.job.tasks:
            try:
                self.ledger.ask(self.trackers, self.job.tasks[0].group, [task.folder for task in self.job.tasks])
            except OSError as error:
                self._problem = f"cannot write to {self.ledger.path} ({error.strerror})"

    def __enter__(self) -> Mirroring:
        self.ask()
        self.tick()
        return self

    def tick(self) -> None:
        """Start the mirror unless one is running."""
        ended = self._process is None or self._process.poll() is not None
        finished = self._process is not None and self._process.returncode == 0
        if not self.job.tasks or not ended or finished or self._problem:
            return
        if self._starts == STARTS:
            self._problem = f"the mirror ended {STARTS} times unexpectedly, see {self.ledger.log}"
            return
        self._starts += 1
        try:
            self._process = spawn(self.job)
        except OSError as error:
            self._problem = f"the mirror could not be started ({error.strerror})"

    def __exit__(self, *error: object) -> None:
        """Let the mirror finish, as long as its heartbeat goes on; Ctrl-C ends it at once."""
        self.tick()
        if self._process is None:
            return
        assert self._process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            began = time.time()
            while self._process.poll() is None:
                if time.time() - max(began, self.ledger.last_beat()) > PATIENCE:
                    self._problem = f"the mirror has not answered for {PATIENCE:.0f} s"
                    break
                time.sleep(0.05)
        finally:
            kill(self._process)

    def remarks(self) -> list[str]:
        """Report the outcome of the mirrors, a line for each tool and place."""
        return [line for name in self.trackers if self.job.tasks for line in self._remarks(name)]

    def _remarks(self, name: str) -> Iterator[str]:
        title, total = TRACKERS[name].title, len(self.job.tasks)
        entries = [self._entry(name, task) for task in self.job.tasks]
        shown = [entry.place for entry in entries if entry and entry.is_remote]
        if shown:
            place = shown[0] if TRACKERS[name].has_server else Path(self.job.out) / shown[0]
            yield f"{title}: {len(shown)} of {total} runs mirrored, such as {place}"
        offline = [entry for entry in entries if entry and entry.place and not entry.is_remote]
        for reason, count in Counter(entry.problem for entry in offline).items():
            folder = Path(self.job.out) / Path(offline[0].place).parent
            yield f"{title}: {count} of {total} runs written offline to {folder} ({reason}); bench sync uploads them."
        failed = Counter(entry.problem for entry in entries if entry and not entry.place)
        failed[self._problem or "the mirror did not get to them"] += entries.count(None)
        for reason, count in failed.items():
            if count:
                advice = "; bench sync mirrors them" if TRACKERS[name].has_server else ""
                yield f"warning: {title}: {count} of {total} runs not mirrored: {reason}{advice}."

    def _entry(self, name: str, task: Task) -> Entry | None:
        """Return how mirroring a run ended in this sweep."""
        entry = self.ledger.entry(name, id_of(task))
        return entry if entry and entry.noted >= self._began else None


def below(path: Path, out: Path) -> str:
    """Return a run's folder as tasks name it."""
    return str(path.absolute().relative_to(out.absolute()))
