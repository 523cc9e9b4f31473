"""`bench cluster`: prove a cluster's profile before trusting it with a sweep."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from benchmark.cli.options import RUNS, SOME_FAILED, ClusterFile, Json, Out
from benchmark.cli.terminal import console as open_console

app = typer.Typer(no_args_is_help=True, help="Prove a cluster's profile before trusting it with a sweep.")


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand although it is the only one."""


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
