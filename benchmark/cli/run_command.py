"""`bench run`: train what is missing of a sweep."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from benchmark.cli.options import SOME_FAILED, STOPPED, SUBMITTED, DryRun, Given, Json, with_options
from benchmark.cli.terminal import console as open_console
from benchmark.cli.terminal import telling, where_to_look
from benchmark.launch.launch_options import LaunchOptions

if TYPE_CHECKING:
    from rich.console import Console

    from benchmark.launch.driver import Tick
    from benchmark.plan.spec import RunSpec
    from benchmark.plan.sweep import Plan
    from benchmark.records import RunView

PLANNING = "Reading methods and data sets, planning the runs"


@with_options
def run(
    experiment: Annotated[
        Path | None, typer.Argument(help="YAML file with any of these options as keys; options win over it.")
    ] = None,
    methods: Annotated[
        str | None, typer.Option(help="Methods: names, paths or 'all', e.g. ogm[alpha=0.1,0.3],./mine.py.")
    ] = None,
    *,
    sweep: Given,
    launch: Given,
    dry_run: DryRun = False,
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

    if experiment is not None:
        written = read_experiment(experiment)
        launch = {"track": ",".join(written.track), **({"out": Path(written.out)} if written.out else {}), **launch}
    options = LaunchOptions(**launch)
    parse_trackers(options.track)
    given = {**sweep, **({"methods": methods} if methods is not None else {})}
    with telling(open_console(stderr=as_json), PLANNING):
        planned = plan(sweep_of(experiment, given, options.data_root))
    remarks = train(planned, options, dry_run, as_json, experiment.stem if experiment else "")
    if remarks is not None:
        views = [view(RunFolder(spec.folder(options.out))) for spec in planned.runs]
        conclude(views, options.out, open_console(stderr=as_json), as_json, remarks)


def train(planned: Plan, options: LaunchOptions, dry_run: bool, as_json: bool, sweep: str = "") -> list[str] | None:
    """Train what is missing of a plan, or show it.

    Args:
        planned: the runs.
        options: how and where to train.
        dry_run: only show the plan.
        as_json: show it for machines.
        sweep: name of the sweep, for mirrors.

    Returns:
        What is to be said of the mirrors; None where nothing was trained or not all that can be done now is done.
    """
    from benchmark.launch import driver

    console = open_console(stderr=as_json)
    for method, dataset, reason in planned.unsupported:
        console.print(f"unsupported: {method} on {dataset}: {reason}", markup=False)
    driver.check_writable(options.out)
    todo = driver.missing(planned.runs, options)
    if dry_run:
        _print_plan(planned, todo, options.out, as_json)
        return None
    with stoppable(), ExitStack() as waiting:
        waiting.enter_context(telling(console, f"Starting {len(todo)} of {len(planned.runs)} runs"))

        def shown(specs: Sequence[RunSpec], out: Path, at_a_time: int) -> AbstractContextManager[Tick]:
            waiting.close()
            return watch(specs, out, at_a_time, console)

        remarks = driver.train(planned.runs, todo, options, sweep, teller(console), shown)
    if todo and options.detach:
        console.print(SUBMITTED)
        return None
    return remarks


@contextmanager
def stoppable() -> Generator[None]:
    """Turn Ctrl-C into a line that says what becomes of the runs, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt as stop:
        open_console(stderr=True).print(str(stop))
        raise typer.Exit(STOPPED) from None


@contextmanager
def watch(specs: Sequence[RunSpec], out: Path, at_a_time: int, console: Console) -> Generator[Tick]:
    """Show progress on the console."""
    from benchmark.cli.progress import Progress

    with Progress(specs, out, at_a_time, console) as progress:
        yield progress.tick


def teller(console: Console) -> Callable[[str], None]:
    """Return a function that prints a line."""
    return partial(console.print, markup=False, soft_wrap=True)


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


def conclude(views: Sequence[RunView], out: Path, console: Any, as_json: bool, remarks: Sequence[str] = ()) -> None:
    from benchmark.records import State

    failed = [run for run in views if run.status.state is not State.DONE]
    if as_json:
        from benchmark.cli.status_command import as_row

        sys.stdout.write(json.dumps([as_row(run) for run in views], indent=1) + "\n")
    else:
        from benchmark.registry import report_after
        from benchmark.report import compare

        for table in report_after("run").load()().tables(compare(views)[0]):
            console.print(table.to_rich())
        for run in failed:
            console.print(
                f"[red]{run.status.state}[/] " + escape(f"{run.dataset} {run.method} s{run.seed}: {run.status.cause}"),
                soft_wrap=True,
            )
        console.print(
            f"{len(views) - len(failed)} of {len(views)} runs done, in {out}. Files: bench report --out {out}",
            markup=False,
            soft_wrap=True,
        )
    for remark in [*where_to_look(views, out), *remarks]:
        console.print(remark, markup=False, soft_wrap=True)
    if failed:
        raise typer.Exit(SOME_FAILED)
