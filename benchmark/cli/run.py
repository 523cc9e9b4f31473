"""`bench run`: train what is missing of a sweep."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmark.cli.options import RUNS, SOME_FAILED, DataRoot, Json, Out
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from benchmark.launch import Resources
    from benchmark.records import RunView
    from benchmark.spec import Plan, RunSpec


def run(
    experiment: Annotated[
        Path | None, typer.Argument(help="YAML file with any of these options as keys; options win over it.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods: names, paths or 'all', e.g. ogm[alpha=0.1,0.3],./mine.py.")
    ] = None,
    datasets: Annotated[str | None, typer.Option(help="Data sets, e.g. dialpad,avletters[split=speaker].")] = None,
    seeds: Annotated[str | None, typer.Option(help="0-4, 0,1,7 or 5 (that one seed). Default 0.")] = None,
    protocol: Annotated[str | None, typer.Option(help="Protocol, by name or path. Default unified.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="target.key=value: ogm.alpha=0.3, protocol.optimizer.lr=0.1.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, instead of the protocol's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Training batch, instead of the protocol's.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 (bitwise reproducible) or bf16.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (all GPUs in turn) or cuda:N.")] = "auto",
    jobs: Annotated[int | None, typer.Option(help="Runs at a time. Default: GPUs, else CPU cores.")] = None,
    threads: Annotated[
        int, typer.Option(help="CPU threads of each run, 0 to divide the cores among the jobs. 1 keeps numbers exact.")
    ] = 1,
    out: Out = RUNS,
    data_root: DataRoot = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train again what is done.")] = False,
    as_json: Json = False,
) -> None:
    """Train, evaluate and record what is missing of METHODS x DATASETS x SEEDS.

    The same command again does only what is missing or failed; a killed run goes on from its last epoch.
    """
    from benchmark.experiment import sweep_of
    from benchmark.records import RunFolder, view
    from benchmark.spec import plan

    typed = {"methods": methods, "datasets": datasets, "seeds": seeds, "protocol": protocol, "epochs": epochs,
             "batch_size": batch_size, "precision": precision, "set": settings or None}  # fmt: skip
    given = {key: value for key, value in typed.items() if value is not None}
    planned = plan(sweep_of(experiment, given, data_root))
    console = open_console(stderr=as_json)
    for method, dataset, reason in planned.unsupported:
        console.print(f"unsupported: {method} on {dataset}: {reason}", markup=False)
    check_writable(out)
    todo = _missing(planned.runs, out, force)
    if dry_run:
        _print_plan(planned, todo, out, as_json)
        return
    if todo:
        _launch(planned.runs, todo, resources(device, jobs, threads), out, data_root, force, console)
    views = [view(RunFolder(spec.folder(out))) for spec in planned.runs]
    _conclude(views, out, console, as_json)


def check_writable(out: Path) -> None:
    """Raise `UserError` unless files can be made in the output folder."""
    import tempfile

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UserError(Problem("--out", "a folder that can be written", f"{out} ({error.strerror})")) from None


def resources(device: str, jobs: int | None, threads: int) -> Resources:
    """Divide the machine among the runs.

    Raises:
        UserError: when the device is not there or a number makes no sense.
    """
    import torch

    from benchmark.launch import Resources

    num_gpus = torch.cuda.device_count()
    if device == "auto":
        device = "cuda" if num_gpus else "cpu"
    valid = ["auto", "cpu", *(["cuda"] if num_gpus else []), *(f"cuda:{i}" for i in range(num_gpus))]
    if device not in valid:
        raise UserError(Problem("--device", f"one of {', '.join(valid)}", repr(device)))
    cores = len(os.sched_getaffinity(0))
    jobs = (num_gpus if device == "cuda" else 1 if device != "cpu" else cores) if jobs is None else jobs
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


def _launch(
    runs: Sequence[RunSpec],
    todo: Sequence[RunSpec],
    shared: Resources,
    out: Path,
    data_root: Path | None,
    force: bool,
    console: Any,
) -> None:
    from benchmark.cli.progress import Progress
    from benchmark.launch import Launcher

    try:
        with Progress(runs, out, shared.jobs, console) as progress:
            Launcher(out, data_root, shared, force).launch(todo, progress.tick)
    except KeyboardInterrupt:
        open_console(stderr=True).print("Interrupted. Give the same command again to go on from the last checkpoints.")
        raise typer.Exit(130) from None


def _conclude(views: Sequence[RunView], out: Path, console: Any, as_json: bool) -> None:
    from benchmark.records import State

    failed = [run for run in views if run.status.state is not State.DONE]
    if as_json:
        from benchmark.cli.status import as_row

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
    if failed:
        raise typer.Exit(SOME_FAILED)
