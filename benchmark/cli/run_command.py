"""`bench run`: train what is missing of a sweep."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import (
    RUNS,
    SOME_FAILED,
    Assignments,
    BatchSize,
    ClusterFile,
    DataRoot,
    Datasets,
    Detach,
    Device,
    DryRun,
    Epochs,
    Force,
    Jobs,
    Json,
    On,
    Out,
    PerGpu,
    Precision,
    Presets,
    ProtocolName,
    Retries,
    Seeds,
    Threads,
    Track,
)
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError, nearest

if TYPE_CHECKING:
    from benchmark.launch.executors import Executor
    from benchmark.launch.launcher import Resources
    from benchmark.plan.spec import RunSpec
    from benchmark.plan.sweep import Plan
    from benchmark.records import RunView
    from benchmark.track.mirroring import Mirroring


def run(
    experiment: Annotated[
        Path | None, typer.Argument(help="YAML file with any of these options as keys; options win over it.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods: names, paths or 'all', e.g. ogm[alpha=0.1,0.3],./mine.py.")
    ] = None,
    datasets: Datasets = None,
    seeds: Seeds = None,
    protocol: ProtocolName = None,
    settings: Assignments = None,
    presets: Presets = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    precision: Precision = None,
    device: Device = "auto",
    jobs: Jobs = None,
    threads: Threads = 1,
    on: On = "local",
    cluster: ClusterFile = None,
    per_gpu: PerGpu = None,
    retries: Retries = None,
    track: Track = None,
    detach: Detach = False,
    out: Out = RUNS,
    data_root: DataRoot = None,
    dry_run: DryRun = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and record what is missing of METHODS x DATASETS x SEEDS.

    The same command again does only what is missing or failed; a killed run goes on from its last epoch.
    With --on slurm this process only submits and watches: close it at will, the same command again adopts what runs.
    """
    from benchmark.plan.experiment import read_experiment, sweep_of
    from benchmark.plan.sweep import plan
    from benchmark.records import RunFolder, view
    from benchmark.track.mirroring import parse_trackers

    if track is None and experiment is not None:
        track = ",".join(read_experiment(experiment).track)
    trackers = parse_trackers(track or "")
    typed = {"methods": methods, "datasets": datasets, "seeds": seeds, "protocol": protocol, "epochs": epochs,
             "batch_size": batch_size, "precision": precision, "set": settings or None,
             "presets": presets or None}  # fmt: skip
    given = {key: value for key, value in typed.items() if value is not None}
    planned = plan(sweep_of(experiment, given, data_root))
    place = Place(out, data_root, device, jobs, threads, force, retries, per_gpu, cluster, detach, trackers)
    remarks = train(planned, on, place, dry_run, as_json, experiment.stem if experiment else "")
    if remarks is not None:
        views = [view(RunFolder(spec.folder(out))) for spec in planned.runs]
        conclude(views, out, open_console(stderr=as_json), as_json, remarks)


def train(planned: Plan, on: str, place: Place, dry_run: bool, as_json: bool, sweep: str = "") -> list[str] | None:
    """Train what is missing of a plan, or show it.

    Args:
        planned: the runs.
        on: the executor's name.
        place: where to train.
        dry_run: only show the plan.
        as_json: show it for machines.
        sweep: name of the sweep, for mirrors.

    Returns:
        What is to be said of the mirrors; None where nothing was trained or not all that can be done now is done.
    """
    from benchmark.track.mirroring import Mirroring

    console = open_console(stderr=as_json)
    for method, dataset, reason in planned.unsupported:
        console.print(f"unsupported: {method} on {dataset}: {reason}", markup=False)
    check_writable(place.out)
    todo = _missing(planned.runs, place.out, place.force)
    if dry_run:
        _print_plan(planned, todo, place.out, as_json)
        return None
    mirroring = Mirroring(place.trackers, place.out, sweep, [spec.folder(place.out) for spec in todo])
    if todo:
        launch(planned.runs, todo, make_executor(on, place, console), place.out, console, mirroring)
        if place.detach:
            console.print("Submitted. bench status shows how far it is, bench wait waits for it.")
            return None
    return mirroring.remarks()


def check_writable(out: Path) -> None:
    """Raise `UserError` unless files can be made in the output folder."""
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(Problem("--out", "a folder that can be written", f"{out} ({error.strerror})")) from None


def resources(device: str, jobs: int | None, threads: int, per_gpu: int = 1) -> Resources:
    """Divide the machine among the runs.

    Raises:
        UserError: when the device is not there or a number makes no sense.
    """
    import torch

    from benchmark.launch.launcher import Resources

    num_gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if num_gpus else "cpu"
    valid = ["auto", "cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]
    if device not in valid:
        raise UserError(Problem("--device", f"one of {', '.join(valid)}", repr(device)))
    cores = len(os.sched_getaffinity(0))
    if jobs is None:
        jobs = cores if device == "cpu" else per_gpu * (num_gpus if device == "cuda" else 1)
    if jobs < 1 or threads < 0:
        raise UserError(Problem("--jobs/--threads", "at least 1 job and 0 or more threads", f"{jobs} and {threads}"))
    return Resources(jobs, device, num_gpus, threads or max(cores // jobs, 1))


def _missing(runs: Sequence[RunSpec], out: Path, force: bool) -> list[RunSpec]:
    from benchmark.records import RunFolder

    return [spec for spec in runs if force or not RunFolder(spec.folder(out)).is_done()]


def _print_plan(planned: Plan, todo: Sequence[RunSpec], out: Path, as_json: bool) -> None:
    missing = {spec.id for spec in todo}
    rows = [
        {"run": spec.title, "folder": str(spec.folder(out)), "state": "to run" if spec.id in missing else "done"}
        for spec in planned.runs
    ]
    if as_json:
        skipped = [dict(zip(("method", "dataset", "reason"), item, strict=True)) for item in planned.unsupported]
        sys.stdout.write(json.dumps({"runs": rows, "unsupported": skipped}, indent=1) + "\n")
        return
    console = open_console()
    for row in rows:
        console.print(f"{row['state']:7} {row['run']}  ->  {row['folder']}", markup=False, soft_wrap=True)
    console.print(f"{len(todo)} of {len(rows)} runs to do.")


def launch(
    runs: Sequence[RunSpec],
    todo: Sequence[RunSpec],
    executor: Executor,
    out: Path,
    console: Any,
    mirroring: Mirroring | None = None,
) -> None:
    """Train what is to do, with progress on the console; Ctrl-C ends the command with exit code 130."""
    from benchmark.cli.progress import Progress
    from benchmark.records import RunFolder
    from benchmark.track.mirroring import Mirroring

    mirroring = mirroring or Mirroring((), out)
    for spec in todo:
        RunFolder(spec.folder(out)).allow()
    try:
        with mirroring, Progress(runs, out, executor.at_a_time, console) as progress:
            mirror = mirroring.tick

            def tick() -> None:
                progress.tick()
                mirror()

            executor.run(todo, tick)
    except KeyboardInterrupt:
        open_console(stderr=True).print(executor.farewell)
        raise typer.Exit(130) from None


@dataclass(frozen=True)
class Place:
    """What the options say about where to train."""

    out: Path
    data_root: Path | None
    device: str = "auto"
    jobs: int | None = None
    threads: int = 1
    force: bool = False
    retries: int | None = None
    per_gpu: int | None = None
    cluster: Path | None = None
    detach: bool = False
    trackers: Sequence[str] = ()


def make_executor(on: str, place: Place, console: Any) -> Executor:
    """Return the executor that `--on` names.

    Raises:
        UserError: when there is none of that name, or with what is wrong with the options that it uses.
    """
    kinds: dict[str, Callable[[str, Place, Any], Executor]] = {"local": _local, "slurm": _slurm, "inline": _inline}
    kind, _, name = on.partition(":")
    if kind not in kinds or (name and kind != "slurm"):
        raise UserError(Problem("--on", "local, slurm, slurm:CLUSTER or inline", repr(on), nearest(kind, kinds)))
    if place.detach and kind != "slurm":
        raise UserError(Problem("--detach", "--on slurm, where jobs go on without this process", f"--on {on}"))
    return kinds[kind](name, place, console)


def _local(_: str, place: Place, console: Any) -> Executor:
    from benchmark.launch.executors import LocalExecutor
    from benchmark.train.attempt import Attempt

    shared = resources(place.device, place.jobs, place.threads, place.per_gpu or 1)
    return LocalExecutor(Attempt(place.out, place.data_root, force=place.force), shared, place.retries or 0)


def _inline(_: str, place: Place, console: Any) -> Executor:
    from benchmark.launch.executors import InlineExecutor
    from benchmark.train.attempt import Attempt

    shared = resources(place.device, 1, place.threads)
    return InlineExecutor(Attempt(place.out, place.data_root, force=place.force), shared)


def _slurm(name: str, place: Place, console: Any) -> Executor:
    from benchmark.slurm.executor import Options, SlurmExecutor
    from benchmark.slurm.profile import read_profile

    changes = {"per_gpu": place.per_gpu, "retries": place.retries, "throttle": place.jobs}
    given = {key: value for key, value in changes.items() if value is not None}
    cluster, profile = read_profile(place.cluster, name, given)
    options = Options(place.out, place.data_root or _environment_root(), place.device, place.threads, place.force)

    def tell(words: str) -> None:
        console.print(words, markup=False, soft_wrap=True)

    return SlurmExecutor(options, cluster, profile, tell, place.detach)


def _environment_root() -> Path | None:
    """Return $BENCH_DATA: nodes may not have it."""
    return Path(os.environ["BENCH_DATA"]).expanduser() if os.environ.get("BENCH_DATA") else None


def conclude(views: Sequence[RunView], out: Path, console: Any, as_json: bool, remarks: Sequence[str] = ()) -> None:
    from benchmark.records import State

    failed = [run for run in views if run.status.state is not State.DONE]
    if as_json:
        from benchmark.cli.status_command import as_row

        sys.stdout.write(json.dumps([as_row(run) for run in views], indent=1) + "\n")
    else:
        from benchmark.registry import REPORTS
        from benchmark.report import compare

        for table in REPORTS.find("comparison").load()().tables(compare(views)[0]):
            console.print(table.to_rich())
        for run in failed:
            console.print(
                f"[red]{run.status.state}[/] {run.dataset} {run.method} s{run.seed}: {run.status.cause}",
                soft_wrap=True,
            )
        console.print(
            f"{len(views) - len(failed)} of {len(views)} runs done, in {out}. Files: bench report --out {out}",
            soft_wrap=True,
        )
    for remark in remarks:
        console.print(remark, markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(SOME_FAILED)
