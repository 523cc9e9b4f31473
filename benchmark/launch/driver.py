"""What can be done with runs under an output folder, whatever engine trains them: train, watch, cancel, read logs.

The command line and the Python API parse and print around these functions.
"""

from __future__ import annotations

import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.errors import Problem, Problems, UserError
from benchmark.launch.executors import Executor, find_executor, make_executor, quiet
from benchmark.launch.launch_options import LaunchOptions
from benchmark.launch.launcher import FINAL
from benchmark.launch.launcher import cancel as note_cancelled
from benchmark.launch.sweep_record import engines_at, read_sweeps, write_sweep
from benchmark.plan.spec import RunSpec, check_sources, load_method, read_spec
from benchmark.records import RunFolder, RunView, State, glance, scan, view
from benchmark.track.mirroring import Mirroring, parse_trackers
from benchmark.train.attempt import STOPPING

Tick = Callable[[], None]
Watch = Callable[[Sequence[RunSpec], Path, int], AbstractContextManager[Tick]]
"""Shows progress of runs, given their folder and how many are trained at a time; what it yields is called often."""

STARTED = (State.RUNNING, State.PLANNED)
"""States of runs that have been asked to stop and are at work, or about to be: what waits in a queue is taken out."""
GLANCE = 0.5
"""Seconds between two updates of what shows progress."""
PATIENCE = 20.0
"""Seconds to wait for launchers to see a request to cancel."""


@contextmanager
def unwatched(specs: Sequence[RunSpec], out: Path, at_a_time: int) -> Generator[Tick]:
    """Show no progress."""
    yield lambda: None


def check_writable(out: Path) -> None:
    """Raise `UserError` unless files can be made in the output folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(Problem("--out", "a folder that can be written", f"{out} ({error.strerror})")) from None


def missing(runs: Iterable[RunSpec], options: LaunchOptions) -> list[RunSpec]:
    """Return the runs that are to be trained: those that are not done, or all when forced."""
    return [spec for spec in runs if options.force or not RunFolder(spec.folder(options.out)).is_done()]


@dataclass(frozen=True)
class Work:
    """Runs for one engine."""

    options: LaunchOptions
    specs: Sequence[RunSpec]
    sweep: str = ""
    """Name of the sweep, for mirrors."""
    known: Mapping[str, Any] | None = None
    """What the engine knew when these runs were started, to go on with them as before; None to start them afresh."""


def train(
    runs: Sequence[RunSpec],
    todo: Sequence[RunSpec],
    options: LaunchOptions,
    sweep: str = "",
    tell: Callable[[str], None] = quiet,
    watch: Watch = unwatched,
) -> list[str]:
    """Train some runs, and return when all of them are over, or submitted where that was asked.

    Args:
        runs: all runs of the sweep, to show progress of.
        todo: those of them to train, as `missing` finds them.
        options: how and where.
        sweep: name of the sweep, for mirrors.
        tell: shows the user a line.
        watch: shows progress.

    Returns:
        What is to be said of the mirrors.

    Raises:
        UserError: when runs cannot be trained so; nothing was started then.
        KeyboardInterrupt: when the user stopped it, with what to say to that.
    """
    parse_trackers(options.track)
    check_writable(options.out)
    return bring([Work(options, todo, sweep)], runs, tell, watch) if todo else []


def retry(
    runs: Sequence[RunView], given: Mapping[str, Any], tell: Callable[[str], None] = quiet, watch: Watch = unwatched
) -> list[str]:
    """Let runs go on as they were started, whatever has happened to them since.

    Args:
        runs: under one output folder.
        given: fields of `LaunchOptions` that are to be otherwise; `out` is needed.
        tell: shows the user a line.
        watch: shows progress.

    Returns:
        What is to be said of the mirrors.

    Raises:
        UserError: with every run whose spec is damaged, or whose code is no longer what it was planned with.
        KeyboardInterrupt: when the user stopped it, with what to say to that.
    """
    work = _as_started(runs, given)
    specs = [spec for each in work for spec in each.specs]
    check_code(specs)
    return bring([replace(each, known=None) for each in work], specs, tell, watch)


def wait(
    out: Path, given: Mapping[str, Any], tell: Callable[[str], None] = quiet, watch: Watch = unwatched
) -> tuple[list[RunView], list[str]]:
    """Wait until everything that was asked for under a folder is over, and restart what has died.

    Everything goes on as it was started, with the code that its engine kept, unless options say otherwise.

    Returns:
        The runs that were waited for, and what is to be said of the mirrors.
    """
    work = _as_started([run for run in asked_for(out) if run.status.state not in FINAL], given)
    specs = [spec for each in work for spec in each.specs]
    remarks = bring(work, specs, tell, watch) if work else []
    return [view(RunFolder(spec.folder(out))) for spec in specs], remarks


def asked_for(out: Path) -> list[RunView]:
    """Return the runs of all sweeps on record, as they are now."""
    folders = dict.fromkeys(folder for record in read_sweeps(out) for folder in record.runs)
    return [view(RunFolder(out / folder)) for folder in folders if (out / folder).exists()]


def _as_started(runs: Sequence[RunView], given: Mapping[str, Any]) -> list[Work]:
    """Return runs by how each was started last; those of which nothing is on record as `given` says."""
    out = Path(given["out"])
    latest = {folder: record for record in read_sweeps(out) for folder in record.runs}
    problems = Problems()
    groups: dict[str, tuple[Work, list[RunSpec]]] = {}
    for run in runs:
        record = latest.get(str(run.folder.path.absolute().relative_to(out.absolute())))
        options = (record.options if record else LaunchOptions()).changed(given)
        known = record.known if record and replace(options, trust=False) == record.options else None
        work = Work(options, (), record.sweep if record else "", known)
        with problems.collect():
            spec = read_spec(run.folder)
            if not options.trust:
                check_sources(spec, run.folder)
            groups.setdefault(repr(work), (work, []))[1].append(spec)
    problems.raise_any()
    return [replace(work, specs=specs) for work, specs in groups.values() if specs]


def bring(
    work: Sequence[Work],
    shown: Sequence[RunSpec],
    tell: Callable[[str], None] = quiet,
    watch: Watch = unwatched,
) -> list[str]:
    """Bring runs to their end.

    Args:
        work: what is to be done, all under one output folder.
        shown: the runs to show progress of.
        tell: shows the user a line.
        watch: shows progress.
    """
    work = [replace(each, options=each.options.resolved()) for each in work]
    for each in work:
        if each.known is None:
            check_threads(each.specs, each.options)
    engines = [make_executor(each.options, tell) for each in work]
    known = [engine.prepare(e.specs) if e.known is None else e.known for e, engine in zip(work, engines, strict=True)]
    steps = []
    for each, engine, fact in zip(work, engines, known, strict=True):
        if each.known is None:
            write_sweep(each.options, fact, each.specs, each.sweep)
            for spec in each.specs:
                RunFolder(spec.folder(each.options.out)).allow()
        steps.append(engine.run(each.specs) if each.known is None else engine.resume(each.specs, fact))
    mirrors = [
        Mirroring(parse_trackers(o.track), o.out, each.sweep, [spec.folder(o.out) for spec in each.specs])
        for each in work for o in [each.options]
    ]  # fmt: skip
    at_a_time = sum(engine.at_a_time for engine in engines)
    with ExitStack() as stack:
        for mirror in mirrors:
            stack.enter_context(mirror)
        tick = stack.enter_context(watch(shown, work[0].options.out, at_a_time))
        drive(list(zip(engines, steps, strict=True)), [tick, *(mirror.tick for mirror in mirrors)])
    return [remark for mirror in mirrors for remark in mirror.remarks()]


def drive(work: Sequence[tuple[Executor, Generator[float]]], ticks: Sequence[Tick]) -> None:
    """Have engines take their steps in turn until all are over, and show progress meanwhile.

    Raises:
        KeyboardInterrupt: when the user stopped it, after every engine has let go, with their messages for the user.
    """
    due = {steps: 0.0 for _, steps in work}
    try:
        with _stopping_as_ctrl_c(), ExitStack() as stack:
            for steps in due:
                stack.enter_context(closing(steps))
            while due:
                for steps in [steps for steps, when in due.items() if when <= time.monotonic()]:
                    try:
                        due[steps] = time.monotonic() + next(steps)
                    except StopIteration:
                        del due[steps]
                for tick in ticks:
                    tick()
                pause = min(due.values(), default=0.0) - time.monotonic()
                time.sleep(min(max(pause, 0.0), GLANCE))
    except KeyboardInterrupt:
        words = dict.fromkeys(executor.farewell for executor, _ in work)
        raise KeyboardInterrupt(" ".join(words)) from None


@contextmanager
def _stopping_as_ctrl_c() -> Generator[None]:
    """Take every signal of `STOPPING` for Ctrl-C; one that is ignored, as by nohup, stays ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():  # only that one hears signals
        yield
        return
    heard = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_DFL]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def engines_of(out: Path) -> tuple[list[Executor], list[str]]:
    """Return the engines that have something under an output folder, to look after it, and remarks on those missing."""
    engines, remarks = [], []
    for name in engines_at(out):
        try:
            engines.append(find_executor(name)(LaunchOptions(on=name, out=out)))
        except UserError as error:
            remarks += [f"Runs that {name} knows of are shown as their folders tell them: {p}" for p in error.problems]
    return engines, remarks


def overview(out: Path) -> tuple[list[RunView], list[str]]:
    """Return every run under a folder, those included that so far only a queue knows of, and remarks if any."""
    runs = {str(run.folder.path.relative_to(out)): run for run in scan(out, glance)}
    engines, remarks = engines_of(out)
    for engine in engines:
        found, remark = engine.overview(runs)
        runs |= found
        remarks += [remark] * bool(remark)
    return sorted(runs.values(), key=_naturally), remarks


def _naturally(run: RunView) -> tuple[list[tuple[int, str]], str]:
    """Order runs as people count: seed 27 before seed 127, whatever the digits of their ids."""
    words = re.split(r"(\d+)", run.title)
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in words], str(run.folder.path)


def cancel(runs: Sequence[RunView], out: Path) -> tuple[list[RunView], list[str]]:
    """Stop runs that wait or work, wherever they are, and wait a while for them to have stopped.

    Returns:
        The runs as they are then, and remarks if any.
    """
    out = out.absolute()
    runs = [replace(run, folder=RunFolder(run.folder.path.absolute())) for run in runs]
    for run in runs:
        run.folder.ask_to_cancel()
    engines, remarks = engines_of(out)
    remarks += filter(None, [engine.cancel(runs) for engine in engines])
    for folder in (run.folder for run in runs if run.status.state is State.PLANNED):
        if not folder.is_alive() and folder.last_status().state is State.PLANNED:
            note_cancelled(read_spec(folder), folder)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(view(run.folder).status.state in STARTED for run in runs):
        time.sleep(0.2)
    for run in runs:
        if run.folder.last_status().state is State.RUNNING and not run.folder.is_alive():
            note_cancelled(read_spec(run.folder), run.folder)  # nobody was left to record it
    return [view(run.folder) for run in runs], remarks


def job_logs(run: RunView, out: Path) -> list[Path]:
    """Return the files in which engines keep what a run's job said beside the run's own log."""
    return [path for engine in engines_of(out)[0] for path in engine.logs(run)]


def check_threads(specs: Sequence[RunSpec], options: LaunchOptions) -> None:
    """Raise `UserError` for runs half trained with another number of CPU threads, which adds up in another order."""
    if options.force or options.mix_threads or not options.threads:
        return
    problems = []
    for spec in specs:
        folder = RunFolder(spec.folder(options.out))
        status, before = folder.last_status(), folder.read_threads()
        if status.epoch and not status.device.startswith("cuda") and before not in (None, options.threads):
            got = (
                f"--threads {options.threads}: epochs {status.epoch + 1} to {status.epochs} would not be as the others"
            )
            advice = f"Give --threads {before}, --force to train it again, or --mix-threads to go on anyway."
            problems.append(Problem(f"run {spec.title}", f"the {before} threads that trained it so far", got, advice))
    if problems:
        raise UserError(*problems)


def check_code(specs: Sequence[RunSpec]) -> None:
    """Raise `UserError` with every run whose code is no longer what it was planned with."""
    problems = Problems()
    for spec in specs:
        with problems.collect():
            load_method(spec)
    problems.raise_any()
