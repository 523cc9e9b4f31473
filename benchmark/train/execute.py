"""One run in one process: from a spec to a finished folder, or to a failed one that says why."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from filelock import Timeout

from benchmark import __version__
from benchmark.data import Dataset
from benchmark.errors import Problem, UserError
from benchmark.metrics import FUSED, HEADLINE
from benchmark.plan.snapshot import code_version
from benchmark.plan.spec import RunSpec, build_dataset, keep_spec, load_method
from benchmark.protocol import Recipe
from benchmark.records import Epoch, RunFolder, State, Status, machine, scheduler_job
from benchmark.rules import BEST_VALID, LAST
from benchmark.train.attempt import BUSY, INTERRUPTED, STOP_SIGNAL, STOPPING, UNRECORDED, Attempt
from benchmark.train.cost import load_average, start_memory
from benchmark.train.finish import finish
from benchmark.train.saving import forget_previous, resume, save, save_last
from benchmark.train.trainer import Feeds, Trainer, build_method, load_feeds

log = logging.getLogger(__name__)

PACKAGES = ("torch", "torchaudio", "torchvision", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow")
"""Libraries whose versions go into env.json."""

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


class Stopped(Exception):
    """A run was asked to stop and did so right after a checkpoint."""


def execute(spec: RunSpec, attempt: Attempt, stop: threading.Event | None = None) -> State:
    """Train, evaluate and record one run; go on from its last checkpoint if there is one.

    Never raises for what goes wrong inside the run: that is written to status.json and log.txt.

    Args:
        spec: what to train.
        attempt: where and how.
        stop: set by others when the run is to stop after the epoch in hand.

    Raises:
        filelock.Timeout: when another process is working on this run.
    """
    folder = RunFolder(spec.folder(attempt.out))
    with folder.lock():
        if folder.is_done() and not attempt.force:
            return State.DONE
        _leave_to_others(folder, attempt)
        with beating(folder, attempt):
            try:
                folder.clear() if attempt.force else folder.remove_litter()
                status = _start(spec, folder, attempt)
                _train(spec, folder, attempt, status, stop or threading.Event())
                files = folder.size_of("spec.yaml", "record.json", folder.predictions.name, folder.embeddings.name)
                final = replace(folder.read_status(), state=State.DONE, cause="", sizes=files)
            except (KeyboardInterrupt, Stopped) as end:
                cause = str(end) or "stopped by the user"
                final = replace(folder.last_status(), state=State.INTERRUPTED, cause=cause)
            except Exception as error:
                log.error("%s", traceback.format_exc())
                final = replace(folder.last_status(), state=State.FAILED, cause=describe(error))
            return _conclude(folder, final)


def _conclude(folder: RunFolder, final: Status) -> State:
    """Record how a run ended, and return it; a run of which that cannot be recorded has failed."""
    try:
        folder.write_status(replace(final, updated=time.time()))
    except OSError as error:
        log.error("its status cannot be written: %s", error)
        return State.FAILED
    return final.state


def _leave_to_others(folder: RunFolder, attempt: Attempt) -> None:
    """Raise `filelock.Timeout` when a process on another machine, where our lock may not reach, works on the run."""
    status = folder.last_status()
    own_past = bool(attempt.job) and status.job == attempt.job  # the scheduler ended that one before it started this
    if folder.is_beating(status) and not own_past:
        raise Timeout(str(folder.path))


@contextmanager
def beating(folder: RunFolder, attempt: Attempt) -> Iterator[None]:
    """Write a heartbeat of a run now and then, from a thread of its own.

    A worker of a cluster's job also ends when its launcher does: it must not live on outside what the job was given.
    Any other trains on without its launcher, and has to see by itself that it is to be cancelled.
    """
    over = threading.Event()
    launcher = multiprocessing.parent_process()

    def beat() -> None:
        while True:
            try:
                folder.beat()
            except OSError as error:  # a disk that is full or absent for a moment is left to the run itself
                log.warning("no sign of life: %s", error)
            if over.wait(attempt.heartbeat):
                return
            if launcher is not None and not launcher.is_alive() and (attempt.job or folder.is_to_be_cancelled()):
                log.error("the launcher is gone, and %s", "the job with it" if attempt.job else "this is cancelled")
                os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def describe(error: Exception) -> str:
    """Return the cause of a failure in a line."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of GPU memory; try a smaller --batch-size"
    if isinstance(error, UserError):
        return " ".join(map(str, error.problems))
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _start(spec: RunSpec, folder: RunFolder, attempt: Attempt) -> Status:
    before = folder.last_status()
    ends = (*before.ends, before.cause or f"no word from {before.host}") if before.attempts else ()
    keep_spec(spec, folder)
    folder.write("env.json", environment(attempt))
    now = time.time()
    status = Status(
        State.RUNNING,
        before.attempts + 1,
        before.epoch,
        spec.recipe.epochs,
        before.metric,
        host=machine(),
        pid=os.getpid(),
        device=attempt.device,
        started=now,
        updated=now,
        job=attempt.job,
        gpu=attempt.gpu,
        heartbeat=attempt.heartbeat,
        first_epoch=before.epoch,
        stalled=before.stalled + 1,
        ends=ends,
        dataset=spec.dataset.label,
        method=spec.method.label,
        seed=spec.seed,
        sizes=folder.size_of("spec.yaml"),
    )
    folder.write_status(status)
    log.info("attempt %d of %s", status.attempts, spec.title)
    return status


def _train(spec: RunSpec, folder: RunFolder, attempt: Attempt, status: Status, stop: threading.Event) -> None:
    began = time.perf_counter()
    device = torch.device(attempt.device)
    repeat_exactly(spec.recipe)
    start_memory(device)
    dataset = build_dataset(spec, attempt.data_root)
    kind, config = load_method(spec)
    feeds = load_planned(spec, dataset, device)
    build = partial(build_method, kind, config, dataset.task, spec.recipe, spec.seed, device)
    trainer = Trainer(build(), feeds, spec.recipe, spec.seed, device)
    before, remark = resume(trainer, folder)
    if remark:
        status = replace(status, ends=(*status.ends[:-1], "; ".join([*status.ends[-1:], remark])))
        folder.write_status(status)

    def elapsed() -> float:
        return before + time.perf_counter() - began

    status = replace(status, epoch=trainer.epoch, first_epoch=trainer.epoch, started=time.time())
    while trainer.epoch < spec.recipe.epochs:
        if stop.is_set():
            raise Stopped(f"stopped by the scheduler after epoch {trainer.epoch}")
        line, improved = trainer.run_epoch()
        folder.append_history(line)
        for rule in improved:
            if rule is not LAST:  # the last model is in the checkpoint that resuming needs
                keep = trainer.method.state_dict() if rule is BEST_VALID else None
                save(folder.checkpoints / f"{rule.name}.pt", {"method": keep, "test": trainer.test_logits})
        save_last(folder, {**trainer.state(), "total": elapsed()})
        metric = Epoch(line).measured("valid", FUSED, HEADLINE.name)
        status = replace(status, epoch=trainer.epoch, metric=metric, updated=time.time(), stalled=0)
        folder.write_status(status)
    finish(spec, folder, trainer, build, elapsed)
    forget_previous(folder)


def load_planned(spec: RunSpec, dataset: Dataset, device: torch.device) -> Feeds:
    """Load the data of a run.

    Raises:
        UserError: when data, split or pretrained weights are not those that the run was planned with.
    """
    feeds = load_feeds(dataset, spec.recipe, device)
    found = {"data": dataset.fingerprint(), "split": feeds.split, "weights": dict(dataset.weights())}
    planned = {"data": spec.fingerprint, "split": spec.split, "weights": spec.weights}
    if other := [what for what in planned if found[what] != planned[what]]:
        where, advice = f"data set {spec.dataset.label}", "Give the command again to train on what is there now."
        advice += " Where code of the data set has changed, raise its `version`."
        problems = [Problem(where, f"the {w} of the plan, {planned[w]}", f"{found[w]}", advice) for w in other]
        raise UserError(*problems)
    return feeds


def environment(attempt: Attempt) -> dict[str, Any]:
    """Describe the machine, what else it does, the versions and the code of a run."""
    return {
        "modalbench": __version__,
        **code_version(),
        "argv": sys.argv,
        "host": machine(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "device": attempt.device,
        "gpu": _gpu_name(attempt.device),
        "job": scheduler_job(),
        "threads": torch.get_num_threads(),
        "jobs": attempt.jobs,
        "cores": os.cpu_count(),
        "load": load_average(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _gpu_name(device: str) -> str | None:
    """Return the name of a GPU; None without one, which CUDA says in its own words when the run asks for it."""
    with suppress(RuntimeError, AssertionError):  # no driver, no such device; torch built without CUDA
        return torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return None


def work(spec: RunSpec, attempt: Attempt) -> None:
    """Body of a worker process: set it up, execute, and tell the launcher by exit code.

    Raises:
        OSError: when the run's folder cannot be written at all.
    """
    folder = RunFolder(spec.folder(attempt.out))
    folder.path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)  # what libraries print belongs in the run's log
    os.dup2(descriptor, 2)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, force=True)
    stop = threading.Event()
    signal.signal(STOP_SIGNAL, lambda *_: stop.set())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a launcher on a cluster ignores it, and we are its child
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        with single_run(attempt.threads):
            if execute(spec, attempt, stop) is not folder.last_status().state:
                sys.exit(UNRECORDED)
    except Timeout:
        sys.exit(BUSY)
    except KeyboardInterrupt:  # before the run began, or after it ended
        sys.exit(INTERRUPTED)


def repeat_exactly(recipe: Recipe) -> None:
    """Have torch compute the same bits every time, and on a GPU in the precision that the recipe names.

    Left alone, a GPU's convolutions round what they multiply to TF32, 10 bits instead of float32's 23.
    """
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = recipe.precision == "tf32"


@contextmanager
def single_run(threads: int) -> Iterator[None]:
    """Give this process the threads of one run, and the settings that make its numbers repeat."""
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products on a GPU ask for
    with threadpool_limits(threads):
        yield
