"""A sweep on a real cluster to which everything happens that happens on clusters, and its numbers afterwards."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest

from benchmark.records import RunView, State, scan

pytestmark = pytest.mark.slurm

METHOD = """
    import time
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    HERE = Path({here!r})

    class {name}(Method):
        '''Notes every epoch it trains; waits in epoch 1 while its file `hold` exists; raises while `raise` does.'''

        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            self.mine = f"{{type(self).__name__}}{{self.run.seed}}"
            self.left = 3 if epoch == 1 else -1
            with (HERE / "ledger").open("a") as ledger:
                ledger.write(f"{{self.mine}} {{epoch}}\\n")
            if epoch == 1 and (HERE / f"raise-{{self.mine}}").exists():
                raise RuntimeError("on purpose")

        def step(self, batch):
            self.left -= 1
            while self.left == 0 and (HERE / f"hold-{{self.mine}}").exists():
                time.sleep(0.02)
            return super().step(batch)
"""

EPOCHS = 3
SAME = ("history.jsonl", "predictions.parquet", "embeddings.npz")
HELD = ("Steady0", "Steady1", "Steady2", "Steady3", "Steady4", "Late0")
SCANCELLED, REQUEUED, PREEMPTED, WORKER_KILLED, JOB_KILLED, TIMED_OUT = HELD
RAISING = "Steady5"


class Stage:
    """A sweep of twelve runs, six of them held in their second epoch, and what is seen of it."""

    def __init__(self, folder: Path, blobs: str) -> None:
        self.folder = folder
        self.out = folder / "runs"
        for name in ("steady", "late"):
            text = textwrap.dedent(METHOD).format(here=str(folder), name=name.capitalize())
            (folder / f"{name}.py").write_text(text)
        methods = f"{folder / 'steady.py'},{folder / 'late.py'}"
        recipe = ("--epochs", EPOCHS, "--batch-size", 16, "--device", "cpu")
        self.command = ("run", "--methods", methods, "--datasets", blobs, "--seeds", "0-5", *recipe)

    def touch(self, what: str, *names: str) -> None:
        for name in names:
            (self.folder / f"{what}-{name}").touch()

    def let_go(self, *names: str) -> None:
        for name in names:
            (self.folder / f"hold-{name}").unlink()

    def runs(self, out: Path | None = None) -> dict[str, RunView]:
        """Return the runs by method and seed: Steady0, Late0."""
        views = scan(out or self.out)
        return {f"{run.spec['method']['name'].capitalize()}{run.seed}": run for run in views if run.spec}

    def results(self, out: Path | None = None) -> dict[str, bytes]:
        """Return the bytes of the results of every finished run."""
        return {
            f"{name} {file}": (run.folder.path / file).read_bytes()
            for name, run in self.runs(out).items() if run.record for file in SAME
        }  # fmt: skip

    def is_held(self, name: str, attempt: int = 1) -> bool:
        """Tell whether a run is in its second epoch, in that attempt or a later one."""
        run = self.runs().get(name)
        held = run and run.status.epoch == 1 and run.status.state is State.RUNNING
        return bool(held and run.status.attempts >= attempt)

    def lines(self) -> list[str]:
        """Return the epochs that were begun, in order: `Steady0 1`."""
        return (self.folder / "ledger").read_text().splitlines()


@pytest.mark.parametrize("accounting", ["booked", pytest.param("unbooked", marks=pytest.mark.exhaustive)])
def test_whatever_happens_every_run_that_can_finish_does_so_once_with_the_same_numbers(
    accounting, request, bench, start, profile, blobs, tmp_path, wait_until, parent_of
):
    cluster = request.getfixturevalue(accounting)
    stage = Stage(tmp_path, blobs)
    stage.touch("raise", RAISING)
    done = bench(*stage.command, "--on", "inline", "--out", "inline")
    assert done.rc == 3, done.said
    expected = stage.results(tmp_path / "inline")
    assert len(expected) == 11 * len(SAME)
    (tmp_path / "ledger").unlink()

    stage.touch("hold", *HELD)
    file = profile(partition="low", notice=50, methods="{late: {time: 20m}}")
    command = (*stage.command, "--on", "slurm", "--cluster", file, "--out", "runs")
    driver = start(*command, env=cluster.environment)
    wait_until(lambda: all(map(stage.is_held, HELD)), "six runs in the middle of their second epoch", 240)
    at_work = [run.status for run in stage.runs().values() if run.status.attempts]
    assert all(status.host in ("n1", "n2", "n3", "n4") for status in at_work)
    driver.kill()
    driver.wait()
    before = cluster.number_of_jobs()

    status = {name: run.status for name, run in stage.runs().items()}
    cluster.ask("scancel", status[SCANCELLED].job)
    cluster.ask("scontrol", "requeue", status[REQUEUED].job)
    os.kill(status[WORKER_KILLED].pid, signal.SIGKILL)
    os.kill(parent_of(parent_of(status[JOB_KILLED].pid)), signal.SIGKILL)  # the job's own process; slurmd ends the rest
    minutes = int((time.time() - status[TIMED_OUT].started) // 60) + 2
    cluster.ask("scontrol", "update", f"job={status[TIMED_OUT].job}", f"timelimit={minutes}")
    cluster.stop_controller()
    cluster.start_controller()
    driver = start(*command, env=cluster.environment)
    node = status[PREEMPTED].host
    options = ("--partition=high", f"--nodelist={node}", "--gpus-per-node=2", "--cpus-per-task=1", "--output=/dev/null")
    wait_until(lambda: cluster.number_of_jobs() > before, "the new driver to submit what is missing")
    cluster.ask("sbatch", *options, "--wrap", "sleep 1")

    for name in (SCANCELLED, REQUEUED, WORKER_KILLED, JOB_KILLED, PREEMPTED, TIMED_OUT):
        wait_until(lambda name=name: stage.is_held(name, 2), f"the second attempt of {name}", 240)
    stage.let_go(*HELD)
    stdout, stderr = driver.communicate(timeout=240)
    assert driver.returncode == 3, stderr
    assert "RuntimeError: on purpose" in stdout

    runs = stage.runs()
    assert {name for name, run in runs.items() if run.status.state is State.DONE} == set(runs) - {RAISING}
    assert runs[RAISING].status.state is State.FAILED
    assert stage.results() == expected
    begun = Counter(stage.lines())
    for name, run in runs.items():
        assert run.status.attempts == len(run.status.ends) + 1
        if run.record:
            assert [begun[f"{name} {epoch}"] for epoch in (0, 2)] == [1, 1], f"{name}: a finished epoch is not repeated"
            assert begun[f"{name} 1"] <= run.status.attempts
    ends = {name: " | ".join(run.status.ends) for name, run in runs.items()}
    assert "cancelled" in ends[SCANCELLED]
    assert "killed (signal 9, SIGKILL, likely out of memory)" in ends[WORKER_KILLED]
    assert "out of time or preempted" in ends[TIMED_OUT]
    for path in (path for path in tmp_path.rglob("*") if path.is_dir()):
        assert len(list(path.iterdir())) < 1000

    told = bench("status", "--out", "runs", "--json", env=cluster.environment)
    assert told.rc == 3
    assert Counter(row["state"] for row in told.json) == {"done": 11, "failed": 1}
    assert bench("wait", "--out", "runs", env=cluster.environment).said == "Nothing is at work."
    report = bench("report", "--out", "runs", "--to", "report", "--quiet")
    assert report.rc == 0, report.said
    assert "on purpose" in (tmp_path / "report" / "comparison.md").read_text()
