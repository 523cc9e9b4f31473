"""`bench evaluate`: what finished models do when modalities are missing or noisy."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import RUNS, SOME_FAILED, DataRoot, Json, Out, Trust
from benchmark.cli.terminal import console as open_console
from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from benchmark.records import RunView
    from benchmark.robustness.evaluator import Evaluator


def evaluate(
    out: Out = RUNS,
    data_root: DataRoot = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; exact on the one that trained.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads; 1, as in bench run, keeps numbers exact.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Evaluate again what is evaluated.")] = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Evaluate finished runs with modalities missing, and with noise on them; no retraining.

    Writes missing.json and noise.json into each run's folder, for bench report missing, noise and imbalance.
    """
    import torch

    from benchmark.launch.local import resources
    from benchmark.records import scan
    from benchmark.robustness.evaluator import Evaluator

    shared = resources(device, 1, threads)
    runs = list(scan(out))
    if not any(run.record for run in runs):
        got = f"{len(runs)} unfinished runs in {out}" if runs else f"none in {out}"
        raise UserError(Problem("--out", "a folder with finished runs", got, "Make some with bench run."))
    torch.set_num_threads(shared.threads)
    evaluator = Evaluator(data_root, torch.device(shared.device_of(0)), trust)
    console = open_console(stderr=as_json)
    rows: list[dict[str, str]] = []
    for run in runs:
        state, cause = _evaluate(evaluator, run, force)
        title = f"{run.dataset} {run.method} s{run.seed}" if run.spec else run.folder.path.name
        rows.append({"run": title, "folder": str(run.folder.path), "state": state, "cause": cause})
        console.print(f"{state}: {title}" + (f", {cause}" if cause else ""), markup=False, soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    if any(row["state"] == "failed" for row in rows):
        raise typer.Exit(SOME_FAILED)


def _evaluate(evaluator: Evaluator, run: RunView, force: bool) -> tuple[str, str]:
    """Evaluate one run and return its outcome and why; one run never stops the others."""
    from benchmark.records import is_evaluated
    from benchmark.train.execute import describe

    if run.problem:
        return "failed", run.problem
    if not run.record:
        return "left out", f"the run is {run.status.state}"
    if not force and is_evaluated(run.folder, run.record.id):
        return "already there", ""
    try:
        evaluator.evaluate(run.folder)
    except Exception as error:  # noqa: BLE001  whatever a plugin raises is the reason shown
        return "failed", describe(error)
    return "evaluated", ""
