"""`bench cluster`: prove a cluster's profile before trusting it with a sweep, and see what the sweep has cost."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from benchmark.cli.options import RUNS, SOME_FAILED, ClusterFile, Json, Out
from benchmark.cli.terminal import console as open_console

app = typer.Typer(no_args_is_help=True, help="Prove a cluster's profile; see what runs have cost.")


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A profile; the default one if none is named.")] = "",
    cluster: ClusterFile = None,
    out: Out = RUNS,
    limit: Annotated[float, typer.Option(help="Seconds to wait for the job.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Submit a tiny job and report what it finds: Python, GPU, shared folder, locks, accounting, requeueing, signals.

    Exit code 3 if something is missing that runs need. What they can do without is only told.
    """
    from benchmark.slurm.cluster_check import check_profile
    from benchmark.slurm.profile import read_profile

    found, profile = read_profile(cluster, name)
    console = open_console(stderr=as_json)
    results = []
    for result in check_profile(Path(out).absolute(), found, profile, limit):
        results.append(result)
        console.print(f"[{result.colour}]{result.verdict:8}[/] {result.name}  {escape(result.detail)}", soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps([result.__dict__ for result in results], indent=1) + "\n")
    if any(result.verdict == "missing" for result in results):
        raise typer.Exit(SOME_FAILED)


@app.command("cost")
def cost(out: Out = RUNS, as_json: Json = False) -> None:
    """Show the GPU and CPU hours that each method has used, and how long its jobs waited, from Slurm's accounting."""
    from benchmark.cli.progress import seconds
    from benchmark.slurm.accounting import costs_of
    from benchmark.slurm.submission import Registry

    costs = costs_of(Path(out).absolute())
    for words in Registry(Path(out).absolute()).damage(also_closed=True):
        open_console(stderr=True).print(words, markup=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps([one.__dict__ for one in costs], indent=1) + "\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("method", "runs", "starts of jobs", "GPU hours", "CPU hours", "mean wait", "longest wait"):
        table.add_column(name, justify="left" if name == "method" else "right")
    for one in costs:
        hours = f"{one.gpu_hours:.2f}", f"{one.cpu_hours:.2f}"
        table.add_row(
            Text(one.method), str(one.runs), str(one.starts), *hours, seconds(one.wait), seconds(one.longest_wait)
        )
    gpu, cpu = sum(one.gpu_hours for one in costs), sum(one.cpu_hours for one in costs)
    table.add_row("all", str(sum(one.runs for one in costs)), "", f"{gpu:.2f}", f"{cpu:.2f}", "", "")
    open_console().print(table if costs else f"No jobs of {out} on a cluster.")
