"""`bench cancel`, `retry`, `wait` and `logs`: what to do with runs that are planned, at work or over."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import RUNS, SOME_FAILED, ClusterFile, DataRoot, Json, On, Out, PerGpu
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, Problems, UserError, nearest

if TYPE_CHECKING:
    from benchmark.plan.spec import RunSpec
    from benchmark.records import RunView

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Runs: the path or name of a folder, the digits of an id, or words as 'cremad ogm s*'."),
]
PATIENCE = 20.0
"""Seconds to wait for launchers to see a request to cancel."""


def select(runs: Sequence[RunView], names: Sequence[str]) -> list[RunView]:
    """Return the runs that any of the names means.

    Raises:
        UserError: with every name that means none.
    """
    from fnmatch import fnmatchcase

    def is_meant(run: RunView, name: str) -> bool:
        folder = run.folder.path
        digits = folder.name.rpartition("-")[2]
        return (
            name == folder.name
            or (len(name) >= 4 and digits.startswith(name))
            or Path(name).absolute() == folder.absolute()
            or fnmatchcase(run.title, name)
        )

    problems = Problems()
    chosen: dict[Path, RunView] = {}
    for name in names:
        found = [run for run in runs if is_meant(run, name)]
        chosen |= {run.folder.path: run for run in found}
        if not found:
            with problems.collect():
                raise UserError(Problem("run", "a run", repr(name), nearest(name, [run.title for run in runs])))
    problems.raise_any()
    return list(chosen.values())


def cancel(
    names: Names = None,
    everything: Annotated[bool, typer.Option("--all", help="Cancel every run that waits or works.")] = False,
    out: Out = RUNS,
) -> None:
    """Stop runs that wait or work, here or on a cluster. What is finished stays, and bench retry lets them go on."""
    from benchmark.records import State, view
    from benchmark.slurm.cancel import cancel_runs
    from benchmark.slurm.overview import overview
    from benchmark.slurm.scheduler import SilentError

    if not names and not everything:
        raise UserError(Problem("bench cancel", "names of runs, or --all", "none"))
    out = out.absolute()
    runs, _ = overview(out)
    active = [run for run in runs if run.status.state in (State.RUNNING, State.QUEUED)]
    chosen = active if everything else [run for run in select(runs, names or []) if run in active]
    console = open_console()
    try:
        cancel_runs(out, chosen)
    except SilentError as silence:
        console.print(
            f"Slurm does not answer ({silence}): jobs that wait will end as soon as they start.", markup=False
        )
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and any(view(run.folder).status.state is State.RUNNING for run in chosen):
        time.sleep(0.2)
    for run in chosen:
        state = view(run.folder).status.state
        console.print(f"{state}: {run.title}" + " (asked to stop)" * (state is not State.CANCELLED), markup=False)
    console.print(f"{len(chosen)} runs cancelled." if chosen else "Nothing waits or works.")


def retry(
    names: Names = None,
    on: On = "local",
    cluster: ClusterFile = None,
    per_gpu: PerGpu = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs in turn) or cuda:N.")] = "auto",
    jobs: Annotated[int | None, typer.Option(help="Runs at a time.")] = None,
    out: Out = RUNS,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Let runs go on that failed, were cancelled or were interrupted; all of them if none is named."""
    from benchmark.cli.run_command import Place, conclude, launch, make_executor
    from benchmark.records import State, view
    from benchmark.slurm.overview import overview

    runs, _ = overview(out)
    over = [run for run in runs if run.status.state in (State.FAILED, State.CANCELLED, State.INTERRUPTED)]
    chosen = [run for run in select(runs, names) if run in over] if names else over
    console = open_console(stderr=as_json)
    if not chosen:
        console.print("Nothing has failed, was cancelled or was interrupted.")
        return
    specs = _specs_of(chosen)
    executor = make_executor(on, Place(out, data_root, device, jobs, per_gpu=per_gpu, cluster=cluster), console)
    launch(specs, specs, executor, out, console)
    conclude([view(run.folder) for run in chosen], out, console, as_json)


def _specs_of(runs: Sequence[RunView]) -> list[RunSpec]:
    """Read the specs of runs.

    Raises:
        UserError: with every run whose spec is damaged, or whose code is no longer what it was planned with.
    """
    from benchmark.plan.spec import RunSpec, load_method
    from benchmark.records import RecordError
    from benchmark.settings import parse_settings

    problems, specs = Problems(), []
    for run in runs:
        with problems.collect():
            try:
                content = run.folder.read_spec()
            except RecordError as error:
                advice = "Give the command again that made it."
                raise UserError(Problem(f"run {run.folder.path}", "a sound spec.yaml", str(error), advice)) from None
            spec = parse_settings(RunSpec, content, f"run {run.folder.path}")
            load_method(spec)
            specs.append(spec)
    problems.raise_any()
    return specs


def wait(out: Out = RUNS, as_json: Json = False) -> None:
    """Wait until everything that was submitted to a cluster is done or failed; start again what died meanwhile.

    Everything goes on as it was submitted, with the code that it was submitted with. Exit code 3 if a run failed.
    """
    from benchmark.cli.progress import Progress
    from benchmark.cli.run_command import conclude
    from benchmark.records import RunFolder, view
    from benchmark.slurm.executor import resume, sleep
    from benchmark.slurm.submission import Registry

    console = open_console(stderr=as_json)
    registry = Registry(out.absolute())
    if not registry.path.exists():
        console.print(f"Nothing was submitted from {out}.")
        return
    executors = resume(registry, lambda words: console.print(words, markup=False, soft_wrap=True))
    specs = [spec for executor in executors for spec in executor.unfinished]
    try:
        with Progress(specs, out, sum(executor.at_a_time for executor in executors) or 1, console) as progress:
            while sum(executor.step() for executor in executors):  # each gets its look, not only the first
                sleep(min(executor.profile.poll for executor in executors), progress.tick)
    except KeyboardInterrupt:
        open_console(stderr=True).print("No longer watching; jobs go on.")
        raise typer.Exit(130) from None
    if specs:
        conclude([view(RunFolder(spec.folder(out))) for spec in specs], out, console, as_json)
    else:
        console.print("Nothing is at work.")


def logs(
    name: Annotated[str, typer.Argument(help="A run, as for bench cancel.")],
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end; 0 for all.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    out: Out = RUNS,
) -> None:
    """Print what a run has said, and where its job on a cluster said more."""
    from benchmark.records import State, view
    from benchmark.slurm.overview import overview
    from benchmark.slurm.submission import Registry

    runs, _ = overview(out)
    chosen = select(runs, [name])
    if len(chosen) > 1:
        listed = ", ".join(str(run.folder.path) for run in chosen[:5])
        raise UserError(Problem("bench logs", "one run", f"{len(chosen)}: {listed}", "Name its folder."))
    (run,) = chosen
    job_log = Registry(out).log_of(run.status.job) if run.status.job else None
    if job_log:
        open_console(stderr=True).print(f"its job: {job_log}", markup=False, soft_wrap=True)
    log = run.folder.log
    if not log.exists():
        open_console(stderr=True).print("It has not said anything yet.")
        if not follow:
            raise typer.Exit(SOME_FAILED)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    sys.stdout.write("".join(text.splitlines(keepends=True)[-lines:]))
    position = len(text.encode())
    while follow and view(run.folder).status.state in (State.RUNNING, State.QUEUED, State.PLANNED):
        time.sleep(0.5)
        more = log.read_bytes()[position:] if log.exists() else b""
        position += len(more)
        sys.stdout.write(more.decode(errors="replace"))
        sys.stdout.flush()
