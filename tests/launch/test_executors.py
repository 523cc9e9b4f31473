"""Engines that train runs: found by entry point, with one interface for a run's whole life, and what is on record."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import typer
from typer.testing import CliRunner

from benchmark import cli
from benchmark.errors import UserError
from benchmark.launch import driver, executors
from benchmark.launch.executors import GROUP, OWN, find_executor, make_executor
from benchmark.launch.launch_options import LaunchOptions, flag, launch_options
from benchmark.launch.sweep_record import engines_at, read_sweeps, write_sweep
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status, machine, scan

QUEUE = """
    from dataclasses import replace
    from benchmark.launch.executors import Executor
    from benchmark.launch.launcher import cancel
    from benchmark.plan.spec import read_spec
    from benchmark.launch.sweep_record import read_sweeps
    from benchmark.records import RunFolder, State

    class QueueExecutor(Executor):
        '''Keeps runs in a line, a file for each, and trains those that are still in it when it is asked to go on.'''

        places = "LINE"
        outlives = True

        @property
        def line(self):
            return self.options.out / ".queue"

        def ticket(self, path):
            return self.line / path.name

        def prepare(self, specs):
            return {"line": self.options.place}

        def run(self, specs):
            folders = {str(spec.folder(self.options.out).relative_to(self.options.out)) for spec in specs}
            record = read_sweeps(self.options.out)[-1]
            assert set(record.runs) == folders, "on record before anything is started"
            assert record.known == {"line": self.options.place}
            self.line.mkdir(exist_ok=True)
            for spec in specs:
                self.ticket(spec.folder(self.options.out)).write_text("waits")
            return self.work(specs if not self.options.detach else [])

        def resume(self, specs, known):
            assert known == {"line": "main"}
            return self.work(specs)

        def work(self, specs):
            from benchmark.train.execute import execute, single_run
            for spec in specs:
                with single_run(1):
                    execute(spec, self.options.attempt())
                self.ticket(spec.folder(self.options.out)).write_text("has left the line")
                yield 0.0

        def overview(self, runs):
            return {
                name: replace(run, status=replace(run.status, state=State.QUEUED, cause="waits in line"))
                if run.status.state is State.PLANNED and self.ticket(run.folder.path).exists() else run
                for name, run in runs.items()
            }, "the line is short"

        def cancel(self, runs):
            for run in runs:
                self.ticket(run.folder.path).unlink()
                cancel(read_spec(run.folder), run.folder)
            return ""

        def logs(self, run):
            return [self.ticket(run.folder.path)]
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An engine of another distribution: one file and one entry point."""
    (tmp_path / "made_up_queue.py").write_text(textwrap.dedent(QUEUE))
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("queue", "made_up_queue:QueueExecutor", GROUP)
    monkeypatch.setattr(executors, "entry_points", lambda group: [entry] if group == GROUP else [])
    yield
    sys.modules.pop("made_up_queue", None)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Give a command to `bench` in this very process; return what it said and its exit code."""
    monkeypatch.chdir(tmp_path)

    def give(*arguments, rc=0):
        done = CliRunner().invoke(cli.app, [str(word) for word in arguments], catch_exceptions=False)
        assert done.exit_code == rc, done.output
        return done.stdout if "--json" in arguments else " ".join(done.output.split())

    return give


@pytest.fixture
def specs(blobs):
    return plan(Sweep(["concat"], [blobs], [0, 1], recipe={"epochs": 1})).runs


def states(out):
    return {run.seed: run.status.state for run in scan(out)}


# --- engines of others ---------------------------------------------------------------------------------------------


def test_an_engine_of_another_distribution_runs_lists_cancels_resumes_and_logs(installed, ask, blobs, tmp_path):
    out = tmp_path / "runs"
    sweep = ("run", "--methods", "concat", "--datasets", blobs, "--seeds", "0-1", "--epochs", 1)
    assert "Submitted" in ask(*sweep, "--on", "queue:main", "--detach")
    listed = json.loads(ask("status", "--json"))
    assert {(row["seed"], row["state"], row["cause"]) for row in listed} == {
        (0, "queued", "waits in line"), (1, "queued", "waits in line"),
    }  # fmt: skip
    assert "the line is short" in ask("status")
    assert "1 runs cancelled" in ask("cancel", "synthetic concat s1")
    assert states(out) == {0: State.PLANNED, 1: State.CANCELLED}
    assert "1 of 1 runs done" in ask("wait", rc=3), "what is cancelled is not done"
    assert states(out) == {0: State.DONE, 1: State.CANCELLED}
    assert "1 of 1 runs done" in ask("retry", "synthetic concat s1")
    assert {record.options.on for record in read_sweeps(out)} == {"queue:main"}, "it goes on where it was"
    assert "Nothing is at work" in ask("wait")
    said = ask("logs", "synthetic concat s0")
    assert ".queue" in said


def test_a_folder_with_runs_of_an_engine_that_is_not_here_can_be_read(ask, specs, tmp_path):
    write_sweep(LaunchOptions(on="ray:far", out=tmp_path / "runs"), {}, specs)
    runs, remarks = driver.overview(tmp_path / "runs")
    assert [run.status.state for run in runs] == [State.PLANNED] * 2
    assert "ray" in remarks[0]


def test_engines_of_others_cannot_replace_ours(installed, monkeypatch):
    entries = [EntryPoint("local", "made_up_queue:QueueExecutor", GROUP)]
    monkeypatch.setattr(executors, "entry_points", lambda group: entries)
    assert find_executor("local").__name__ == "LocalExecutor"


def test_the_engines_of_the_package_are_declared_as_another_distribution_would(repo):
    config = configparser.ConfigParser()
    config.read(repo / "setup.cfg")
    lines = config["options.entry_points"][GROUP].split("\n")
    assert dict(line.split(" = ") for line in lines if line) == OWN
    for name in OWN:
        assert not find_executor(name).__abstractmethods__


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on": "slrum"}, "Did you mean 'slurm'"),
        ({"on": "local:here"}, "local alone, got 'local:here'"),
        ({"detach": True}, "goes on without this process"),
    ],
)
def test_what_no_engine_can_do_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        make_executor(LaunchOptions(**options))


@pytest.mark.parametrize("source", ["1 / 0", "class QueueExecutor: pass"])
def test_an_engine_that_cannot_be_used_is_told(installed, tmp_path, source):
    (tmp_path / "made_up_queue.py").write_text(source)
    with pytest.raises(UserError, match=r"an engine that imports|derived from Executor"):
        find_executor("queue")


def test_all_numbers_that_make_no_sense_are_told_at_once():
    with pytest.raises(UserError) as error:
        LaunchOptions(jobs=0, threads=-1, per_gpu=0, retries=-1)
    assert len(error.value.problems) == 4


# --- what is imported ----------------------------------------------------------------------------------------------

SPY = """
import sys
sys.argv = ["bench", *sys.argv[1:]]
from benchmark.cli import main
try:
    main()
finally:
    print([name for name in sys.modules if name.startswith("benchmark.slurm")])
"""


@pytest.mark.parametrize("command", [("status",), ("cancel", "--all"), ("logs", "synthetic concat s0")])
def test_looking_after_runs_loads_an_engine_only_where_it_has_something(finished, command):
    line = [sys.executable, "-P", "-c", SPY, *command, "--out", str(finished)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert engines_at(finished) == ["local"]


# --- the same options everywhere -----------------------------------------------------------------------------------


def options_of(command):
    return {name for parameter in command.params for name in parameter.opts}


COMMANDS = {
    name: options_of(command)
    for name, command in typer.main.get_command(cli.app).commands.items()
    if not hasattr(command, "commands")
}


def test_every_command_that_trains_takes_every_option_of_training():
    wanted = {flag(name) for name in launch_options()}
    trains = {name for name, options in COMMANDS.items() if {"--on", "--jobs", "--track", "--retries"} & options}
    assert trains >= {"run", "retry", "wait", "ablate"}
    assert {name: wanted - COMMANDS[name] for name in trains} == {name: set() for name in trains}


def test_every_sweep_takes_the_same_options_of_what_to_train():
    sweeps = {"--datasets", "--seeds", "--protocol", "--set", "--presets", "--epochs", "--batch-size", "--precision"}
    assert sweeps <= COMMANDS["run"] & COMMANDS["ablate"]


# --- on record -----------------------------------------------------------------------------------------------------


def test_what_was_started_and_never_begun_is_shown_and_waiting_trains_it(specs, tmp_path):
    options = LaunchOptions(on="inline", device="cpu", retries=4, out=tmp_path / "runs")
    write_sweep(options, {}, specs, "mine")  # as a driver that dies right then
    (record,) = read_sweeps(options.out)
    assert (record.options, record.sweep) == (options, "mine")
    runs, remarks = driver.overview(options.out)
    assert {(run.title, run.status.state) for run in runs} == {(spec.title, State.PLANNED) for spec in specs}
    assert not remarks
    found, _ = driver.wait(options.out, {"out": options.out})
    assert [run.status.state for run in found] == [State.DONE] * 2
    assert driver.wait(options.out, {"out": options.out}) == ([], [])
    assert len(read_sweeps(options.out)) == 1


def test_what_is_planned_can_be_cancelled_and_is_not_trained_by_waiting(specs, tmp_path):
    out = tmp_path / "runs"
    write_sweep(LaunchOptions(on="inline", out=out), {}, specs)
    runs, _ = driver.overview(out)
    cancelled, _ = driver.cancel(runs[:1], out)
    assert cancelled[0].status.state is State.CANCELLED
    found, _ = driver.wait(out, {"out": out})
    assert [run.folder.path for run in found] == [runs[1].folder.path.absolute()]


def test_a_record_follows_its_folder_and_a_damaged_one_hurts_no_other(specs, tmp_path):
    write_sweep(LaunchOptions(out=tmp_path / "runs"), {}, specs)
    write_sweep(LaunchOptions(out=tmp_path / "runs", threads=2), {}, specs)
    first = sorted((tmp_path / "runs" / ".sweeps" / "local").glob("*.json"))[0]
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert [record.options.out for record in read_sweeps(tmp_path / "moved")] == [tmp_path / "moved"] * 2
    (tmp_path / "moved" / first.relative_to(tmp_path / "runs")).write_text('{"created"')
    assert len(read_sweeps(tmp_path / "moved")) == 1


OOPS = """
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    class Oops(Method):
        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            if epoch == 1 and (Path(__file__).parent / "raise").exists():
                raise RuntimeError("on purpose")
"""


@pytest.mark.full
def test_a_run_goes_on_with_the_threads_that_it_began_with(bench, plugin, blobs, tmp_path):
    (tmp_path / "raise").touch()
    sweep = ("run", "--methods", plugin("oops", OOPS), "--datasets", blobs, "--epochs", 2)
    assert bench(*sweep, "--threads", 2, "--jobs", 1, "--retries", 3).rc == 3
    (tmp_path / "raise").unlink()
    for refused in (bench("retry", "--threads", 1), bench(*sweep)):
        assert refused.rc == 2
        assert "the 2 threads that trained it so far, got --threads 1" in refused.said
        assert "--mix-threads" in refused.said
    assert bench("retry").rc == 0
    (run,) = scan(tmp_path / "runs")
    assert run.record
    assert run.folder.read_threads() == 2
    options = [record.options for record in read_sweeps(tmp_path / "runs")]
    assert [(o.threads, o.jobs, o.retries) for o in options] == [(2, 1, 3)] * 2


def test_threads_may_be_mixed_on_purpose_or_where_they_change_nothing(specs, tmp_path):
    folder = RunFolder(specs[0].folder(tmp_path))
    status = folder.last_status()
    folder.write("env.json", {"threads": 2})
    options = LaunchOptions(out=tmp_path)
    driver.check_threads(specs, options)  # nothing is trained yet

    def half_trained(device):
        folder.write_status(replace(status, epoch=1, epochs=2, device=device))

    half_trained("cuda:0")
    driver.check_threads(specs, options)
    half_trained("cpu")
    for changes in ({"mix_threads": True}, {"force": True}, {"threads": 2}, {"threads": 0}):
        driver.check_threads(specs, options.changed(changes))
    with pytest.raises(UserError, match="epochs 2 to 2"):
        driver.check_threads(specs, options)


# --- what people see of many runs ----------------------------------------------------------------------------------


def test_runs_are_listed_as_people_count(blobs, tmp_path, ask):
    for method, seeds in (("late_sum", [127, 9]), ("concat", [150, 27])):
        specs = plan(Sweep([method], [blobs], seeds, recipe={"epochs": 1})).runs
        write_sweep(LaunchOptions(out=tmp_path / "runs"), {}, specs)
    shown = [row["run"] for row in json.loads(ask("status", "--json"))]
    assert shown == [f"synthetic {run}" for run in ("concat s27", "concat s150", "late_sum s9", "late_sum s127")]


def test_many_cancelled_runs_are_a_few_lines_and_a_count(blobs, tmp_path, ask):
    specs = plan(Sweep(["concat"], [blobs], range(12), recipe={"epochs": 1})).runs
    write_sweep(LaunchOptions(out=tmp_path / "runs"), {}, specs)
    said = ask("cancel", "--all")
    assert said.count("cancelled:") == 10
    assert said.endswith("... and 2 more. 12 runs cancelled.")


def test_what_does_not_stop_is_told_by_the_exit_code(specs, tmp_path, ask, monkeypatch):
    monkeypatch.setattr(driver, "PATIENCE", 0.3)
    write_sweep(LaunchOptions(out=tmp_path / "runs"), {}, specs[:1])
    folder = RunFolder(specs[0].folder(tmp_path / "runs"))
    folder.write_status(replace(folder.read_status(), state=State.RUNNING))
    with folder.lock():
        said = ask("cancel", "--all", rc=3)
    assert "0 runs cancelled, 1 asked to stop" in said


HOLD = """
import fcntl, sys
with open(sys.argv[1], "ab") as stream:
    fcntl.flock(stream, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
"""Holds a run's lock until its standard input ends."""


@pytest.mark.full
def test_inline_says_which_process_has_a_run_and_goes_on_with_the_others(ask, blobs, specs, tmp_path):
    folder = RunFolder(specs[0].folder(tmp_path / "runs"))
    folder.path.mkdir(parents=True)
    line = [sys.executable, "-c", HOLD, str(folder.path / ".lock")]
    sweep = ("run", "--methods", "concat", "--datasets", blobs, "--seeds", "0-1", "--epochs", 1, "--on", "inline")
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        folder.write_status(Status(State.RUNNING, pid=holder.pid, host=machine()))
        said = ask(*sweep, rc=3)
        holder.communicate()
    assert f"left out: synthetic concat s0: process {holder.pid} on {machine()} is training it" in said
    assert "Traceback" not in said
    assert states(tmp_path / "runs")[1] is State.DONE
    assert not folder.is_done()
