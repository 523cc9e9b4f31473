"""Many runs on one machine: each in a process of its own, so that none can hurt another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from benchmark.execute import BUSY, work
from benchmark.records import RecordError, RunFolder, State, Status
from benchmark.spec import RunSpec

PRELOADED = [
    "benchmark.execute",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.pipeline",
    "torch._inductor.config",  # what use_deterministic_algorithms imports, 0.8 s
    "torchaudio.functional",
]
"""What workers share by forking from one clean server process, instead of importing it again each."""


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


class Launcher:
    """Runs specs in parallel processes until all are done or failed.

    A run that another process is working on is left to it, and taken over if that process dies.
    """

    def __init__(self, out: Path, data_root: Path | None, resources: Resources, force: bool = False) -> None:
        self.out = out
        self.data_root = data_root
        self.resources = resources
        self.force = force

    def launch(self, specs: Sequence[RunSpec], tick: Callable[[], None] = lambda: None) -> None:
        """Run every spec once; calls `tick` several times a second.

        Raises:
            KeyboardInterrupt: after all workers have stopped; their checkpoints stay.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        waiting, elsewhere = list(specs), list[RunSpec]()
        running: list[_Worker] = []
        free = list(range(self.resources.jobs))
        try:
            while waiting or running or elsewhere:
                while waiting and free:
                    running.append(self._start(context, waiting.pop(0), free.pop(0)))
                wait([worker.process.sentinel for worker in running], timeout=0.2)
                for worker in [w for w in running if w.process.exitcode is not None]:
                    running.remove(worker)
                    free.append(worker.slot)
                    if self._end(worker) == BUSY:
                        elsewhere.append(worker.spec)
                freed = [spec for spec in elsewhere if not RunFolder(spec.folder(self.out)).is_locked()]
                waiting += [spec for spec in freed if not RunFolder(spec.folder(self.out)).is_done()]
                elsewhere = [spec for spec in elsewhere if spec not in freed]
                if elsewhere and not running:
                    time.sleep(0.2)
                tick()
        except KeyboardInterrupt:
            for worker in running:
                worker.process.join(1)  # Ctrl-C in a terminal has reached the workers too
                if worker.process.exitcode is None:
                    os.kill(worker.process.pid, signal.SIGINT)
            for worker in running:
                worker.process.join(10)
                worker.process.kill()
            raise

    def _start(self, context: Any, spec: RunSpec, slot: int) -> _Worker:
        arguments = (spec, self.out, self.data_root, self.resources.device_of(slot), self.resources.threads, self.force)
        process = context.Process(target=work, args=arguments, name=spec.title, daemon=False)
        process.start()
        return _Worker(spec, process, slot)

    def _end(self, worker: _Worker) -> int:
        """Put on record how a worker ended that could not do so itself; return its exit code."""
        code: int = worker.process.exitcode
        worker.process.close()
        folder = RunFolder(worker.spec.folder(self.out))
        try:
            status = folder.read_status()
        except RecordError:
            status = Status()
        if code != BUSY and (code != 0 or status.state is State.RUNNING):
            folder.write_status(replace(status, state=State.FAILED, cause=exit_cause(code), updated=time.time()))
        return code


def exit_cause(code: int) -> str:
    """Say in words why a process ended without saying so itself."""
    if code >= 0:
        return f"the process ended with code {code}; see log.txt"
    name = signal.Signals(-code).name
    likely = ", likely out of memory" if -code == signal.SIGKILL else ""
    return f"killed (signal {-code}, {name}{likely})"
