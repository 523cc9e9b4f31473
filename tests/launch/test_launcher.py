"""Sweeps in processes: killed, repeated, shared between launchers, and always ending with the same bytes."""

from __future__ import annotations

import os
import random
import signal
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from benchmark.launch.launcher import Resources, exit_cause
from benchmark.records import RunView, State, scan

HELD = """
    import time
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    HERE = Path(__file__).parent

    class Held(Method):
        '''Notes every epoch it trains, and waits in the middle of epoch 1 while a file `hold<seed>` exists.'''

        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            self.left = 3 if epoch == 1 else -1
            with (HERE / "ledger").open("a") as ledger:
                ledger.write(f"s{self.run.seed} epoch {epoch}\\n")

        def step(self, batch):
            self.left -= 1
            while self.left == 0 and (HERE / f"hold{self.run.seed}").exists():
                time.sleep(0.02)
            return super().step(batch)
"""

OOPS = """
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    class Oops(Method):
        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            self.epoch = epoch

        def loss(self, out, batch):
            return super().loss(out, batch) * (float("nan") if self.epoch == 1 and self.run.seed == 0 else 1.0)
"""

MORTAL = """
    import os
    import signal
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    HERE = Path(__file__).parent

    class Mortal(Method):
        '''Ends its process at every point that has a file `die-<epoch>-<step>`, by the word in that file.'''

        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            self.epoch, self.number = epoch, 0

        def step(self, batch):
            point = HERE / f"die-{self.epoch}-{self.number}"
            self.number += 1
            if point.exists():
                word = point.read_text()
                point.unlink()
                os._exit(int(word)) if word.isdigit() else os.kill(os.getpid(), signal.Signals[word])
            return super().step(batch)
"""

EPOCHS = 3
SAME = ("history.jsonl", "predictions.parquet", "embeddings.npz")


def sweep(method: str, blobs: str) -> tuple[object, ...]:
    return ("run", "--methods", method, "--datasets", blobs, "--epochs", EPOCHS, "--batch-size", 16)


@pytest.fixture
def held(plugin, blobs):
    """Return the start of a command whose runs can be held in the middle of epoch 1."""
    return sweep(plugin("held", HELD), blobs)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, bench_in, blobs):
    """Return the results of the same sweep with one job and nothing in its way."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "held.py").write_text(textwrap.dedent(HELD))
    done = bench_in(folder, *sweep("./held.py", blobs), "--seeds", "0-1", "--jobs", 1, "--out", "runs")
    assert done.rc == 0, done.said
    return results(folder / "runs")


def runs_of(out: Path) -> dict[int, RunView]:
    return {run.seed: run for run in scan(out)}


def results(out: Path) -> dict[str, bytes]:
    """Return the bytes of all results, by their path below the output folder."""
    found = {str(path.relative_to(out)): path.read_bytes() for name in SAME for path in out.rglob(name)}
    assert found
    return found


def held_in_epoch_1(out: Path, seed: int) -> int:
    """Return the process of a run that has finished its first epoch and no more, or 0."""
    run = runs_of(out).get(seed)
    return run.status.pid if run and run.status.epoch == 1 and run.status.state is State.RUNNING else 0


def trained(folder: Path) -> Counter[str]:
    return Counter((folder / "ledger").read_text().splitlines())


ONCE = {f"s{seed} epoch {epoch}": 1 for seed in (0, 1) for epoch in range(EPOCHS)}


@pytest.mark.full
def test_one_job_and_two_give_the_same_bytes(bench, held, tmp_path, undisturbed):
    assert bench(*held, "--seeds", "0-1", "--jobs", 2, "--out", "runs").rc == 0
    assert results(tmp_path / "runs") == undisturbed
    assert {run.folder.read_environment()["jobs"] for run in scan(tmp_path / "runs")} == {2}


@pytest.mark.full
def test_a_killed_run_is_reported_and_resumed_to_the_bytes_of_an_undisturbed_one(
    bench, start, held, tmp_path, wait_until, undisturbed
):
    out, hold = tmp_path / "runs", tmp_path / "hold0"
    hold.touch()
    driver = start(*held, "--seeds", "0-1", "--jobs", 2, "--out", out)
    pid = wait_until(lambda: held_in_epoch_1(out, 0), "seed 0 in the middle of epoch 1")
    os.kill(pid, signal.SIGKILL)
    stdout, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 3, stderr
    assert "killed (signal 9" in " ".join(stdout.split())
    runs = runs_of(out)
    assert (runs[0].status.state, runs[1].status.state) == (State.FAILED, State.DONE)
    assert "killed (signal 9" in runs[0].status.cause
    assert len(runs[0].folder.read_history()) == 1

    hold.unlink()
    again = bench(*held, "--seeds", "0-1", "--jobs", 2, "--out", out)
    assert again.rc == 0, again.said
    runs = runs_of(out)
    assert (runs[0].status.attempts, runs[1].status.attempts) == (2, 1)
    assert trained(tmp_path) == {**ONCE, "s0 epoch 1": 2}, "only the interrupted epoch may be trained twice"
    assert results(out) == undisturbed


@pytest.mark.full
def test_a_run_that_dies_at_ten_points_ends_with_the_bytes_of_one_that_never_did(bench, plugin, blobs, tmp_path):
    command = sweep(plugin("mortal", MORTAL), blobs)
    assert bench(*command, "--on", "inline", "--out", "undisturbed").rc == 0
    ends = ["SIGKILL", "SIGTERM", "137", "0", "SIGSEGV", "1", "SIGKILL", "SIGABRT", "3", "SIGKILL"]
    points = random.Random(0).sample([(epoch, step) for epoch in range(EPOCHS) for step in range(6)], len(ends))
    for (epoch, step), end in zip(points, ends, strict=True):
        (tmp_path / f"die-{epoch}-{step}").write_text(end)
    done = bench(*command, "--out", "runs", "--retries", 10)
    assert done.rc == 0, done.said
    assert not list(tmp_path.glob("die-*"))
    assert results(tmp_path / "runs") == results(tmp_path / "undisturbed")
    (run,) = scan(tmp_path / "runs")
    assert run.status.attempts == 11
    assert Counter("signal 9" in end for end in run.status.ends) == {True: 4, False: 6}


@pytest.mark.full
def test_after_its_driver_is_killed_the_same_command_finishes_everything_and_repeats_nothing(
    start, held, tmp_path, wait_until, undisturbed
):
    out = tmp_path / "runs"
    holds = [tmp_path / f"hold{seed}" for seed in (0, 1)]
    for hold in holds:
        hold.touch()
    driver = start(*held, "--seeds", "0-1", "--jobs", 2, "--out", out)
    wait_until(lambda: held_in_epoch_1(out, 0) and held_in_epoch_1(out, 1), "both runs in the middle of epoch 1")
    driver.kill()
    driver.wait()
    second = start(*held, "--seeds", "0-1", "--jobs", 2, "--out", out)
    for hold in holds:
        hold.unlink()
    _, stderr = second.communicate(timeout=120)
    assert second.returncode == 0, stderr
    assert all(run.record for run in runs_of(out).values())
    assert [run.status.state for run in runs_of(out).values()] == [State.DONE] * 2
    assert trained(tmp_path) == ONCE
    assert results(out) == undisturbed


@pytest.mark.full
def test_when_driver_and_workers_die_the_runs_are_interrupted_and_resume(bench, start, held, tmp_path, wait_until):
    out = tmp_path / "runs"
    (tmp_path / "hold0").touch()
    driver = start(*held, "--seeds", "0", "--jobs", 1, "--out", out)
    wait_until(lambda: held_in_epoch_1(out, 0), "the run in the middle of epoch 1")
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    run = wait_until(lambda: runs_of(out)[0] if not runs_of(out)[0].folder.is_locked() else None, "the lock to go")
    assert run.status.state is State.INTERRUPTED
    (tmp_path / "hold0").unlink()
    assert bench(*held, "--seeds", "0", "--out", out).rc == 0
    assert runs_of(out)[0].status.attempts == 2
    assert trained(tmp_path)["s0 epoch 0"] == 1


@pytest.mark.full
def test_two_launchers_on_one_folder_share_the_work(start, held, tmp_path, wait_until):
    out = tmp_path / "runs"
    (tmp_path / "hold0").touch()  # so that both are surely there at the same time
    both = [start(*held, "--seeds", "0-1", "--jobs", 1, "--out", out) for _ in range(2)]
    wait_until(lambda: held_in_epoch_1(out, 0), "seed 0 in the middle of epoch 1")
    wait_until(lambda: 1 in runs_of(out) and runs_of(out)[1].record, "the other launcher to finish seed 1")
    (tmp_path / "hold0").unlink()
    for driver in both:
        _, stderr = driver.communicate(timeout=120)
        assert driver.returncode == 0, stderr
    assert {seed: run.status.attempts for seed, run in runs_of(out).items()} == {0: 1, 1: 1}
    assert trained(tmp_path) == ONCE


@pytest.mark.full
def test_a_run_whose_loss_becomes_nan_fails_with_its_cause_and_hurts_no_other(bench, plugin, blobs, tmp_path):
    oops = plugin("oops", OOPS)
    done = bench("run", "--methods", oops, "--datasets", blobs, "--seeds", "0-1", "--epochs", EPOCHS, "--out", "runs")
    assert done.rc == 3
    assert "NaN or infinite in epoch 1, step 0" in done.said
    runs = runs_of(tmp_path / "runs")
    assert (runs[0].status.state, runs[1].status.state) == (State.FAILED, State.DONE)
    assert f"bench logs {runs[0].folder.path.name}" in done.said
    assert "NaN or infinite in epoch 1" in runs[0].status.cause
    assert [line["epoch"] for line in runs[0].folder.read_history()] == [0]
    assert "Traceback" in runs[0].folder.log.read_text()


@pytest.mark.full
def test_ctrl_c_stops_the_workers_and_leaves_the_run_to_be_resumed(bench, start, held, tmp_path, wait_until):
    out = tmp_path / "runs"
    (tmp_path / "hold0").touch()
    driver = start(*held, "--seeds", "0", "--jobs", 1, "--out", out)
    wait_until(lambda: held_in_epoch_1(out, 0), "the run in the middle of epoch 1")
    os.killpg(driver.pid, signal.SIGINT)  # what a terminal does
    _, stderr = driver.communicate(timeout=120)
    assert driver.returncode == 130, stderr
    assert "same command" in stderr
    assert runs_of(out)[0].status.state is State.INTERRUPTED
    (tmp_path / "hold0").unlink()
    assert bench(*held, "--seeds", "0", "--out", out).rc == 0
    assert runs_of(out)[0].status.attempts == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, ["signal 9", "SIGKILL", "memory"]),
        (137, ["signal 9", "SIGKILL", "memory"]),
        (-11, ["signal 11", "SIGSEGV"]),
        (1, ["code 1", "bench logs"]),
        (255, ["code 255", "bench logs"]),
    ],
)
def test_the_end_of_a_process_is_told_in_words(code, words):
    assert all(word in exit_cause(code) for word in words)
    assert ("memory" in exit_cause(code)) == ("memory" in words)


def test_slots_take_the_gpus_in_turn_and_keep_a_named_device():
    assert [Resources(4, "cuda", 2, 1).device_of(slot) for slot in range(4)] == ["cuda:0", "cuda:1"] * 2
    assert Resources(2, "cuda:1", 2, 1).device_of(0) == "cuda:1"
    assert Resources(2, "cpu", 2, 1).device_of(1) == "cpu"
