"""Many runs on one machine: each in a process of its own, so that none can harm another. Imports no torch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

from benchmark.plan.spec import RunSpec, keep_spec
from benchmark.records import RunFolder, State, Status, machine
from benchmark.surroundings import safe_start
from benchmark.train.attempt import BUSY, STOP_SIGNAL, Attempt, held_back

log = logging.getLogger(__name__)

PRELOADED = [
    "benchmark.train.execute",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.pipeline",
    "torch._inductor.config",  # what use_deterministic_algorithms imports, 0.8 s
    "torchaudio.functional",
]
"""What workers share by forking from one clean server process, instead of importing it again each."""


ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
"""What glibc's allocator reads when a process starts: keep the memory of one batch for the next instead of giving it
back to the kernel, which would clear it again page by page. Evaluation takes 20 % less time on a CPU."""


STOPPED_WITHIN = 10.0
"""Seconds that workers have to end when they are told to."""

FINAL = (State.DONE, State.FAILED, State.CANCELLED)
"""States in which no process works on a run unless asked to."""


@dataclass(frozen=True)
class Resources:
    """What the runs of this machine share."""

    jobs: int
    """Runs at a time."""
    device: str
    """`cpu`, or `cuda` for all GPUs in turn, or one device such as `cuda:1`."""
    num_gpus: int
    threads: int
    """CPU threads of each run."""

    def device_of(self, slot: int) -> str:
        """Return the device of one of the `jobs` slots."""
        return f"cuda:{slot % self.num_gpus}" if self.device == "cuda" else self.device


@dataclass
class _Worker:
    spec: RunSpec
    process: Any
    slot: int
    unwanted: bool = False
    """Was stopped because the run was cancelled."""


class Launcher:
    """Runs specs in parallel processes until all are done or failed.

    A run that another process is working on is left to it, and taken over if that process dies.
    """

    def __init__(
        self,
        attempt: Attempt,
        resources: Resources,
        retries: int = 0,
        patient: bool = True,
        tell: Callable[[str], None] = log.error,
    ) -> None:
        """Take what runs have in common.

        Args:
            attempt: where and how to train; device, threads and jobs are filled in for each run.
            resources: what the runs share.
            retries: how often in a row a run whose process died is started again without having finished an epoch.
            patient: wait for runs that other processes are working on, to take them over should those die.
            tell: takes a line on what cannot be told by a run's own files.
        """
        self.attempt = attempt
        self.resources = resources
        self.retries = retries
        self.patient = patient
        self.tell = tell
        self.stopping = ""
        """Why no more runs are to be started, in words; empty while they are."""
        self.hurried = False
        """Whether workers at work are to stop at once, too."""
        self._again: set[str] = set()
        self._at_a_time = resources.jobs

    def stop(self, reason: str) -> None:
        """Start no more runs and let those at work end after their epoch. May be called from a signal handler."""
        self.stopping = self.stopping or reason

    def prepare(self) -> None:
        """Start the process that workers fork from. It keeps the signals that are ignored at this moment ignored."""
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
        resource_tracker.ensure_running()  # which would let signals in again
        with held_back(), safe_start():  # a server that is stopped while it imports could start no worker
            forkserver.ensure_running()

    def launch(self, specs: Sequence[RunSpec], tick: Callable[[], None] = lambda: None) -> None:
        """Run every spec once; calls `tick` several times a second.

        Raises:
            KeyboardInterrupt: after all workers have stopped; their checkpoints stay.
        """
        with closing(self.steps(specs)) as steps:
            for _ in steps:
                tick()

    def steps(self, specs: Sequence[RunSpec]) -> Generator[None]:
        """Run every spec once; yields several times a second. Closing it stops all workers; their checkpoints stay.

        Raises:
            KeyboardInterrupt: after all workers have stopped.
        """
        self.prepare()
        context = multiprocessing.get_context("forkserver")
        waiting, elsewhere = list(specs), list[RunSpec]()
        self._at_a_time = min(self.resources.jobs, len(specs))
        running: list[_Worker] = []
        free = list(range(self.resources.jobs))
        try:
            while running or ((waiting or elsewhere) and not self.stopping):
                while waiting and free and not self.stopping:
                    with held_back():  # or one that has just started could be forgotten
                        if self._is_wanted(waiting[0]):
                            running.append(self._start(context, waiting[0], free.pop(0)))
                        waiting.pop(0)
                wait([worker.process.sentinel for worker in running], timeout=0.2)
                for worker in [w for w in running if w.process.exitcode is not None]:
                    running.remove(worker)
                    free.append(worker.slot)
                    self._end(worker, waiting, elsewhere)
                self._signal(running)
                freed = [spec for spec in elsewhere if not self._folder(spec).is_alive()]
                waiting += [spec for spec in freed if not self._folder(spec).is_done()]
                elsewhere = [spec for spec in elsewhere if spec not in freed]
                if elsewhere and not running:
                    time.sleep(0.2)
                yield
        except (KeyboardInterrupt, GeneratorExit):
            with held_back():  # asked twice, it takes as long
                _end_all([worker.process for worker in running])
            raise

    def _folder(self, spec: RunSpec) -> RunFolder:
        return RunFolder(spec.folder(self.attempt.out))

    def _is_wanted(self, spec: RunSpec) -> bool:
        """Return whether a run is still to be started; record that it is not."""
        folder = self._folder(spec)
        if not folder.is_to_be_cancelled():
            return True
        if not folder.is_alive() and not folder.is_done():
            with self._telling(spec):
                cancel(spec, folder)
        return False

    def _start(self, context: Any, spec: RunSpec, slot: int) -> _Worker:
        device = self.resources.device_of(slot)
        attempt = replace(
            self.attempt,
            device=device,
            threads=self.resources.threads,
            jobs=self._at_a_time,
            force=self.attempt.force and spec.id not in self._again,
            gpu=gpu_number(device),
        )
        process = context.Process(target=_work, args=(spec, attempt), name=spec.title, daemon=False)
        with _no_main_module():
            process.start()
        return _Worker(spec, process, slot)

    def _signal(self, running: Sequence[_Worker]) -> None:
        """Tell workers to stop that have to; repeated, since one may not have been listening yet."""
        for worker in running:
            if self._folder(worker.spec).is_to_be_cancelled():
                worker.unwanted = True
                worker.process.terminate()
            elif self.hurried:
                worker.process.terminate()
            elif self.stopping:
                os.kill(worker.process.pid, STOP_SIGNAL)

    def _end(self, worker: _Worker, waiting: list[RunSpec], elsewhere: list[RunSpec]) -> None:
        """Record how a worker ended that could not do so itself, and have its run done by others or again."""
        code, pid = worker.process.exitcode, worker.process.pid
        worker.process.close()
        if code == BUSY:
            if self.patient:
                elsewhere.append(worker.spec)
            return
        folder = self._folder(worker.spec)
        status = folder.last_status()
        if worker.unwanted and status.state is not State.DONE:
            with self._telling(worker.spec):
                cancel(worker.spec, folder)
        elif code != 0 or status.state is State.RUNNING:
            if (status.pid, status.host) != (pid, machine()):  # it died before it could write
                status = replace(status, stalled=status.stalled + 1)
            again = self.retries > 0 and not status.gave_up(self.retries)
            state = State.INTERRUPTED if self.stopping or again else State.FAILED
            cause = self.stopping or exit_cause(code)
            noted = self._note(worker.spec, replace(status, state=state, cause=cause, updated=time.time()))
            if again and noted:  # else nobody would count the attempts
                self._again.add(worker.spec.id)
                waiting.append(worker.spec)

    def _note(self, spec: RunSpec, status: Status) -> bool:
        """Write the status of a run; return whether that could be done."""
        with self._telling(spec):
            self._folder(spec).write_status(status)
            return True
        return False

    @contextmanager
    def _telling(self, spec: RunSpec) -> Iterator[None]:
        """Tell of files of a run that cannot be written, and go on with the other runs."""
        try:
            yield
        except OSError as error:
            self.tell(f"failed: {spec.title}: its status cannot be written ({error})")


def _end_all(processes: Sequence[Any]) -> None:
    """Stop workers, each within seconds; their checkpoints stay."""
    wait([process.sentinel for process in processes], timeout=1)  # Ctrl-C in a terminal has reached them too
    for process in processes:
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGINT)
    end = time.monotonic() + STOPPED_WITHIN
    for process in processes:
        process.join(max(end - time.monotonic(), 0))
        process.kill()
        process.join()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the program that started us from new processes.

    They would run it again, up to and beyond the very call that started them, where a user's script has no
    `if __name__ == "__main__"`. A worker needs none of it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _work(spec: RunSpec, attempt: Attempt) -> None:
    """Body of a worker process; imports here, so that the launcher itself needs no torch."""
    from benchmark.train.execute import work

    work(spec, attempt)


def gpu_number(device: str) -> str:
    """Return the scheduler's number of a device, which is what CUDA_VISIBLE_DEVICES lists; empty if it lists none."""
    kind, _, index = device.partition(":")
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    number = int(index or 0)
    return listed[number] if kind == "cuda" and number < len(listed) else ""


def cancel(spec: RunSpec, folder: RunFolder, cause: str = "cancelled") -> None:
    """Record that a run is cancelled."""
    status = folder.last_status()
    keep_spec(spec, folder)
    status = replace(status, dataset=spec.dataset.label, method=spec.method.label, seed=spec.seed)
    words = f"{cause}; bench retry lets it go on"
    folder.write_status(replace(status, state=State.CANCELLED, cause=words, updated=time.time()))


def exit_cause(code: int) -> str:
    """Return in words why a process ended that left no reason; shells add 128 to the signal that killed a child."""
    number = -code if code < 0 else code - 128
    if number not in set(signal.Signals):
        return f"the process ended with code {code}; bench logs shows what it said"
    likely = ", likely out of memory" if number == signal.SIGKILL else ""
    return f"killed (signal {number}, {signal.Signals(number).name}{likely})"
