"""`bench ablate`: a method with one part taken away at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)
from benchmark.cli.report_command import make_reports
from benchmark.cli.run_command import Place, train

REPORT = "ablation"


def ablate(
    method: Annotated[str, typer.Argument(help="Method, by name or path, perhaps with settings: ogm[alpha=0.1].")],
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
    detach: Detach = False,
    out: Out = RUNS,
    data_root: DataRoot = None,
    to: Annotated[Path, typer.Option("--to", help="Folder to write the table into.")] = Path("report"),
    dry_run: DryRun = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Run METHOD as it is, without each of its parts, and as what is left when it is off; make the table of them.

    The parts are the method's `ablations`, or its `variants` if it declares none. What is done is not run again; the
    other options are those of bench run.
    """
    from benchmark.plan.ablations import grid
    from benchmark.plan.coverage import planned as found
    from benchmark.plan.experiment import sweep_of
    from benchmark.plan.sweep import plan
    from benchmark.registry import REPORTS

    typed = {"datasets": datasets, "seeds": seeds, "protocol": protocol, "epochs": epochs, "batch_size": batch_size,
             "precision": precision, "set": settings or None, "presets": presets or None}  # fmt: skip
    given = {key: value for key, value in typed.items() if value is not None}
    planned = plan(sweep_of(None, {**given, "methods": ",".join(grid(method))}, data_root))
    place = Place(out, data_root, device, jobs, threads, force, retries, per_gpu, cluster, detach)
    if train(planned, on, place, dry_run, as_json) is None:
        return
    runs = list(found(planned.runs, out))
    make_reports([REPORTS.find(REPORT)], runs, planned.unsupported, to, False, as_json)
    if not all(run.record for run in runs):
        raise typer.Exit(SOME_FAILED)
