"""One rule for what stops a sweep: SIGTERM and SIGHUP to the driver end it, and its workers, as Ctrl-C does."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from benchmark.records import State, scan
from benchmark.train.attempt import STOPPING, held_back

SLOW = """
    import time
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    class Slow(Method):
        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def step(self, batch):
            time.sleep(0.2)
            return super().step(batch)
"""


@pytest.fixture
def slow(plugin, blobs, tmp_path):
    """Return a command whose runs take minutes."""
    return ("run", "--methods", plugin("slow", SLOW), "--datasets", blobs, "--epochs", 200, "--out", tmp_path / "runs")


def runs_of(tmp_path):
    return list(scan(tmp_path / "runs"))


def at_work(tmp_path, count=1):
    return sum(run.status.state is State.RUNNING and run.status.epoch > 0 for run in runs_of(tmp_path)) >= count


def members(group):
    """Return the processes of a group that live."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except ProcessLookupError:
            continue
    return found


@pytest.mark.full
@pytest.mark.parametrize("number", sorted(STOPPING), ids=lambda number: number.name)
def test_a_signal_to_the_driver_alone_ends_its_workers_too(start, slow, tmp_path, wait_until, number):
    driver = start(*slow, "--seeds", "0-1", "--jobs", 2)
    wait_until(lambda: at_work(tmp_path, 2), "two runs at work")
    os.kill(driver.pid, number)
    _, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 130, stderr
    assert "same command" in stderr
    assert "Traceback" not in stderr
    wait_until(lambda: not members(driver.pid), "every process of the sweep to end")
    assert {run.status.state for run in runs_of(tmp_path)} == {State.INTERRUPTED}


@pytest.mark.full
@pytest.mark.parametrize("delay", [0.3, 2.0, 5.0])
def test_a_signal_while_workers_start_leaves_no_process_and_no_traceback(start, slow, tmp_path, wait_until, delay):
    driver = start(*slow, "--seeds", "0-7", "--jobs", 8)
    wait_until((tmp_path / "runs" / ".sweeps").exists, "the sweep to be on record")
    time.sleep(delay)
    os.killpg(driver.pid, signal.SIGINT)
    _, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 130, stderr
    assert "Traceback" not in stderr
    wait_until(lambda: not members(driver.pid), "every process of the sweep to end")
    assert {run.status.state for run in runs_of(tmp_path)} <= {State.INTERRUPTED, State.PLANNED}


@pytest.mark.full
def test_cancelling_a_run_whose_driver_was_killed_ends_it(bench, start, slow, tmp_path, wait_until):
    driver = start(*slow, "--seeds", "0", "--jobs", 1)
    wait_until(lambda: at_work(tmp_path), "the run at work")
    driver.kill()
    driver.wait()
    assert runs_of(tmp_path)[0].status.state is State.RUNNING
    done = bench("cancel", "--all", "--out", "runs")
    assert done.rc == 0, done.said
    assert runs_of(tmp_path)[0].status.state is State.CANCELLED
    assert not runs_of(tmp_path)[0].folder.is_locked()


def test_what_comes_while_signals_are_held_back_takes_effect_afterwards():
    reached = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  that it is raised at the end of the inner block is the point
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("inside")
        reached.append("after")
    assert reached == ["inside"]
