"""Runs on this machine: in processes that divide it, or one after another in this very process."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from filelock import Timeout

from benchmark.errors import Problem, UserError
from benchmark.launch.executors import Executor
from benchmark.launch.launcher import FINAL, Launcher, Resources
from benchmark.plan.spec import RunSpec
from benchmark.records import RunFolder

TAKE_OVER = 3.0
"""Seconds without any run at work after which the process that started a sweep counts as gone."""
GLANCE = 0.5
"""Seconds between two looks at runs that another process trains."""


def resources(device: str, jobs: int | None, threads: int, per_gpu: int = 1) -> Resources:
    """Divide the machine among the runs.

    Args:
        device: `auto`, `cpu`, `cuda` for all GPUs in turn, or `cuda:N`.
        jobs: runs at a time; None for one on each core, or `per_gpu` on each GPU.
        threads: CPU threads of each run; 0 to divide the cores among the jobs.
        per_gpu: runs that share a GPU.

    Raises:
        UserError: when the device is not there.
    """
    import torch

    num_gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if num_gpus else "cpu"
    valid = ["auto", "cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]
    if device not in valid:
        raise UserError(Problem("--device", f"one of {', '.join(valid)}", repr(device)))
    cores = len(os.sched_getaffinity(0))
    if jobs is None:
        jobs = cores if device == "cpu" else per_gpu * (num_gpus if device == "cuda" else 1)
    return Resources(jobs, device, num_gpus, threads or max(cores // jobs, 1))


class LocalExecutor(Executor):
    """Processes on this machine, which divide its GPUs and threads."""

    def prepare(self, specs: Sequence[RunSpec]) -> dict[str, Any]:
        options = self.options
        self.shared = resources(options.device, options.jobs, options.threads, options.per_gpu or 1)
        self.at_a_time = self.shared.jobs
        return {}

    def run(self, specs: Sequence[RunSpec]) -> Generator[float]:
        """Runs that another process works on are left to it, and taken over if that dies."""
        launcher = Launcher(self.options.attempt(), self.shared, self.options.retries or 0, tell=self.tell)
        for _ in launcher.steps(specs):
            yield 0.0

    def resume(self, specs: Sequence[RunSpec], known: Mapping[str, Any]) -> Generator[float]:
        """Leave the runs to the process that trains them, and go on with what is left should that have died."""
        self.prepare(specs)
        return self._take_over([(spec, RunFolder(spec.folder(self.options.out))) for spec in specs])

    def _take_over(self, runs: Sequence[tuple[RunSpec, RunFolder]]) -> Generator[float]:
        last_alive = time.monotonic()
        while runs and time.monotonic() - last_alive < TAKE_OVER:
            if any(folder.is_alive() for _, folder in runs):
                last_alive = time.monotonic()
            yield GLANCE
            runs = [run for run in runs if run[1].last_status().state not in FINAL]
        yield from self.run([spec for spec, _ in runs])


class InlineExecutor(Executor):
    """One run after another in this very process, for debuggers."""

    def prepare(self, specs: Sequence[RunSpec]) -> dict[str, Any]:
        self.shared = resources(self.options.device, 1, self.options.threads)
        return {}

    def run(self, specs: Sequence[RunSpec]) -> Generator[float]:
        from benchmark.train.execute import LOG_FORMAT, execute, single_run

        attempt = self.options.attempt(device=self.shared.device_of(0), threads=self.shared.threads)
        logging.getLogger().setLevel(logging.INFO)
        for spec in specs:
            folder = RunFolder(spec.folder(attempt.out))
            try:
                with _logging_to(folder, LOG_FORMAT), single_run(attempt.threads):
                    state = execute(spec, attempt)
                if state is not folder.last_status().state:
                    self.tell(f"failed: {spec.title}: its status cannot be written; see {folder.log}")
            except Timeout:
                status = folder.last_status()
                who = f"process {status.pid} on {status.host}" if status.pid else "another process"
                self.tell(f"left out: {spec.title}: {who} is training it")
            except OSError as error:  # one run's folder, or a disk that is full, does not stop the others
                self.tell(f"failed: {spec.title}: {error}")
            yield 0.0


@contextmanager
def _logging_to(folder: RunFolder, form: str) -> Iterator[None]:
    """Log to the terminal and to the log of a run."""
    folder.path.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    handlers = (logging.StreamHandler(), logging.FileHandler(folder.log, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(form))
        root.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
