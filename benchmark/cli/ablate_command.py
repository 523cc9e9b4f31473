"""`bench ablate`: a method with one part taken away at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmark.cli.options import SOME_FAILED, DryRun, Given, Json, with_options
from benchmark.cli.report_command import make_reports
from benchmark.cli.run_command import PLANNING, train
from benchmark.cli.terminal import console as open_console
from benchmark.cli.terminal import telling
from benchmark.launch.launch_options import LaunchOptions


@with_options
def ablate(
    method: Annotated[str, typer.Argument(help="Method, by name or path, perhaps with settings: ogm[alpha=0.1].")],
    *,
    sweep: Given,
    launch: Given,
    to: Annotated[Path, typer.Option("--to", help="Folder to write the table into.")] = Path("report"),
    dry_run: DryRun = False,
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
    from benchmark.registry import report_after

    options = LaunchOptions(**launch)
    with telling(open_console(stderr=as_json), PLANNING):
        planned = plan(sweep_of(None, {**sweep, "methods": ",".join(grid(method))}, options.data_root))
    if train(planned, options, dry_run, as_json) is None:
        return
    runs = list(found(planned.runs, options.out))
    make_reports([report_after("ablate")], runs, planned.unsupported, to, False, as_json, name="report-ablation")
    if not all(run.record for run in runs):
        raise typer.Exit(SOME_FAILED)
