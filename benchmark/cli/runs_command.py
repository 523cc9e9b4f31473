"""`bench cancel`, `retry`, `wait` and `logs`: what to do with runs that are planned, at work or over."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmark.cli.options import RUNS, SOME_FAILED, SUBMITTED, Given, Json, Out, with_options
from benchmark.cli.terminal import console as open_console
from benchmark.cli.visible import visible
from benchmark.errors import Problem, Problems, UserError, nearest

if TYPE_CHECKING:
    from benchmark.records import RunView

Names = Annotated[
    list[str] | None,
    typer.Argument(help="Runs: the path or name of a folder, the digits of an id, or words as 'cremad ogm s*'."),
]


FEW = 10
"""Most runs that are listed one by one when they are cancelled."""


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
    from benchmark.launch import driver
    from benchmark.records import State

    if not names and not everything:
        raise UserError(Problem("bench cancel", "names of runs, or --all", "none"))
    out = out.absolute()
    runs, _ = driver.overview(out)
    working = (State.RUNNING, State.QUEUED, State.PLANNED)
    active = [run for run in runs if run.status.state in working]
    chosen = active if everything else [run for run in select(runs, names or []) if run in active]
    console = open_console()
    found, remarks = driver.cancel(chosen, out)
    for remark in remarks:
        console.print(remark, markup=False, soft_wrap=True)
    for before, run in list(zip(chosen, found, strict=True))[: FEW if len(chosen) > FEW else None]:
        state = run.status.state
        console.print(f"{state}: {before.title}" + " (asked to stop)" * (state in working), markup=False)
    if len(chosen) > FEW:
        console.print(f"... and {len(chosen) - FEW} more.")
    counts = Counter(run.status.state for run in found)
    cancelled, left = counts[State.CANCELLED], sum(counts[state] for state in working)
    others = [f"{count} {state}" for state, count in counts.items() if state not in (State.CANCELLED, *working)]
    if left:
        others.append(f"{left} asked to stop, which they have not done yet; bench status shows when")
    console.print(", ".join([f"{cancelled} runs cancelled", *others]) + "." if chosen else "Nothing waits or works.")
    if left:
        raise typer.Exit(SOME_FAILED)


@with_options
def retry(names: Names = None, *, changes: Given, as_json: Json = False) -> None:
    """Let runs go on that failed, were cancelled or were interrupted; all of them if none is named.

    They go on as they were started, in the same place too, unless options say otherwise.
    """
    from benchmark.cli.run_command import conclude, stoppable, teller, watch
    from benchmark.launch import driver
    from benchmark.records import State, view

    out = changes.get("out", RUNS)
    runs, _ = driver.overview(out)
    over = [run for run in runs if run.status.state in (State.FAILED, State.CANCELLED, State.INTERRUPTED)]
    chosen = [run for run in select(runs, names) if run in over] if names else over
    console = open_console(stderr=as_json)
    if not chosen:
        console.print("Nothing has failed, was cancelled or was interrupted.")
        return
    with stoppable():
        remarks = driver.retry(chosen, {**changes, "out": out}, teller(console), partial(watch, console=console))
    if changes.get("detach"):
        console.print(SUBMITTED)
        return
    conclude([view(run.folder) for run in chosen], out, console, as_json, remarks)


@with_options
def wait(*, changes: Given, as_json: Json = False) -> None:
    """Wait until everything that was asked for is done or failed; restart what has died.

    Everything goes on as it was started, on a cluster with the code that it was submitted with, unless options say
    otherwise. Exit code 3 while anything is not done.
    """
    from benchmark.cli.run_command import conclude, stoppable, teller, watch
    from benchmark.launch import driver
    from benchmark.records import State

    out = changes.get("out", RUNS)
    console = open_console(stderr=as_json)
    with stoppable():
        found, remarks = driver.wait(out, {**changes, "out": out}, teller(console), partial(watch, console=console))
    if found:
        conclude(found, out, console, as_json, remarks)
    else:
        console.print("Nothing is at work.")
    if any(run.status.state is not State.DONE for run in driver.asked_for(out)):
        raise typer.Exit(SOME_FAILED)


def logs(
    name: Annotated[str, typer.Argument(help="A run, as for bench cancel.")],
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end; 0 for all.")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    out: Out = RUNS,
) -> None:
    """Print what a run has said, and where its job on a cluster said more."""
    from benchmark.launch import driver
    from benchmark.records import State, view

    runs, _ = driver.overview(out)
    chosen = select(runs, [name])
    if len(chosen) > 1:
        listed = ", ".join(str(run.folder.path) for run in chosen[:5])
        raise UserError(Problem("bench logs", "one run", f"{len(chosen)}: {listed}", "Name its folder."))
    (run,) = chosen
    told = driver.job_logs(run, out)
    for path in told:
        open_console(stderr=True).print(f"its job: {path}", markup=False, soft_wrap=True)
    log = next((path for path in (run.folder.log, *told) if path.exists()), run.folder.log)
    if not log.exists():
        open_console(stderr=True).print("It has not said anything yet.")
        if not follow:
            raise typer.Exit(SOME_FAILED)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    sys.stdout.write(visible("".join(text.splitlines(keepends=True)[-lines:])))
    position = len(text.encode())
    while follow and view(run.folder).status.state in (State.RUNNING, State.QUEUED, State.PLANNED):
        time.sleep(0.5)
        more = log.read_bytes()[position:] if log.exists() else b""
        position += len(more)
        sys.stdout.write(visible(more.decode(errors="replace").replace("\r", "\n")))
        sys.stdout.flush()
