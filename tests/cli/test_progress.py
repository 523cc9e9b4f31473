"""Progress of a sweep, from status files: lines where there is no terminal, a table where there is one."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from io import StringIO

import pytest
from rich.console import Console

from benchmark.cli import progress, run_command
from benchmark.cli.progress import Progress, seconds, time_left
from benchmark.launch import driver
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan import sweep
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status

RUNNING = Status(State.RUNNING, 1, 2, 10, 0.5, started=100.0, updated=140.0)
"""Two epochs of ten, 20 s each."""


@pytest.fixture
def specs(blobs):
    return plan(Sweep(["concat"], [blobs], [0, 1, 2], recipe={"epochs": 10, "batch_size": 16})).runs


@pytest.fixture
def clock(monkeypatch):
    """The time of day, which a test moves by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def written(specs, out, *statuses):
    for spec, status in zip(specs, statuses, strict=False):
        folder = RunFolder(spec.folder(out))
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.write_status(status)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "?"),
        (0.0, "0 s"),
        (59.9, "59 s"),
        (60, "1:00 min"),
        (3599, "59:59 min"),
        (3600, "1:00 h"),
        (7379, "2:02 h"),
    ],
)
def test_a_duration_is_written_as_a_person_would(value, words):
    assert seconds(value) == words


def test_without_a_terminal_each_change_of_a_state_is_a_line(specs, tmp_path, clock):
    console = Console(file=StringIO(), width=200)
    with Progress(specs, tmp_path, 1, console) as shown:
        shown.tick()
        written(specs, tmp_path, RUNNING, replace(RUNNING, state=State.FAILED, epoch=0, cause="out of [memory]"))
        shown.tick()
        assert console.file.getvalue() == "", "less than half a second has passed"
        clock[0] += 0.6
        shown.tick()
        clock[0] += 0.6
        shown.tick()
        lines = console.file.getvalue().splitlines()
        assert len(lines) == 2
        assert lines[0] == f"running: {specs[0].title}, valid acc 50.0 %"
        assert lines[1] == f"failed: {specs[1].title}, out of [memory]"
        written(specs, tmp_path, replace(RUNNING, state=State.DONE, epoch=10))
    assert console.file.getvalue().splitlines()[2].startswith("done: "), "what changed last is said at the end"


def test_a_terminal_shows_a_table_with_what_runs_first_and_the_time_left(specs, tmp_path, clock):
    console = Console(file=StringIO(), width=120, force_terminal=True, color_system=None)
    written(specs, tmp_path, replace(RUNNING, state=State.DONE, epoch=10, started=40.0), RUNNING)
    with Progress(specs, tmp_path, 2, console) as shown:
        statuses = [(spec, folder.last_status()) for spec, folder in shown.runs]
        with console.capture() as captured:
            console.print(shown._table(statuses))
    lines = [line.split() for line in captured.get().splitlines()]
    assert lines[0][:3] == ["run", "state", "epoch"]
    states = [next(word for word in line if word in list(State)) for line in lines[1:4]]
    assert states == ["running", "planned", "done"]
    assert lines[1][-4:] == ["2/10", "50.0", "2:40", "min"]
    # the running one: 8 epochs of 20 s; the planned one beside it: 10 epochs at the mean pace, (10 + 20) / 2 s
    assert " ".join(lines[4]) == "1 planned, 1 running, 1 done; about 2:40 min left"


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_time_left_never_rises_while_the_pace_stays(specs, tmp_path, jobs):
    """Every epoch of three runs takes 20 s; `jobs` of them are trained at a time."""
    shown = [Status() for _ in specs]
    found = []
    done = replace(RUNNING, state=State.DONE, epoch=10, started=0.0, updated=200.0)
    for first in range(0, len(specs), jobs):
        batch = range(first, min(first + jobs, len(specs)))
        for epoch in range(11):
            for place in batch:
                shown[place] = replace(done, state=State.RUNNING, epoch=epoch, updated=20.0 * epoch)
                found.append(time_left(list(zip(specs, shown, strict=True)), jobs))
        for place in batch:
            shown[place] = done
            found.append(time_left(list(zip(specs, shown, strict=True)), jobs))
    told = [left for left in found if left is not None]
    assert told == sorted(told, reverse=True)
    assert told[0] == pytest.approx((9 * 20 + 2 * 200) / jobs)
    assert told[-1] == 0


def test_without_a_pace_no_time_is_promised(specs, tmp_path):
    shown = Progress(specs, tmp_path, 1, Console(file=StringIO()))
    assert shown._footer([(spec, Status()) for spec in specs]) == "3 planned"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_says_what_is_done_before_runs_begin(blobs, tmp_path, monkeypatch, terminal):
    screen = StringIO()
    monkeypatch.setattr(run_command, "open_console", lambda **_: Console(file=screen, force_terminal=terminal))
    seen = []

    def train(runs, todo, options, sweep, tell, watch):
        seen.append(screen.getvalue())
        with watch(runs, options.out, 1):
            return []

    monkeypatch.setattr(driver, "train", train)
    planned = plan(Sweep(["concat"], [blobs], [0, 1]))
    run_command.train(planned, LaunchOptions(out=tmp_path), dry_run=False, as_json=False)
    assert ("Starting 2 of 2 runs" in seen[0]) is terminal
    assert ("planned" in screen.getvalue().removeprefix(seen[0])) is terminal, "the table takes its place"


def test_planning_is_said_while_it_takes(blobs, tmp_path, monkeypatch):
    screen = StringIO()
    monkeypatch.setattr(run_command, "open_console", lambda **_: Console(file=screen, force_terminal=True))
    monkeypatch.setattr(sweep, "plan", lambda _: screen.write("|") and plan(Sweep(["concat"], [blobs], [0])))
    untyped = {name: option.default for name, option in signature(run_command.run).parameters.items()}
    run_command.run(**untyped | {"methods": "concat", "datasets": str(blobs), "out": tmp_path, "dry_run": True})
    assert run_command.PLANNING in screen.getvalue().partition("|")[0]
