"""Profiles, what Slurm prints, and what is concluded from it: all that needs no cluster."""

from __future__ import annotations

import os
import time

import pytest

from benchmark.errors import UserError
from benchmark.launch.launcher import gpu_number
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status, machine
from benchmark.slurm import scheduler
from benchmark.slurm.preflight import file_system, sbatch_options
from benchmark.slurm.profile import Request, minutes, read_profile
from benchmark.slurm.scheduler import GONE, Job, Partition, SilentError


@pytest.mark.parametrize(
    ("text", "value"),
    [("90m", 90), ("12h", 720), ("2d", 2880), ("00:30:00", 30), ("1-12:00:00", 2160), ("2-01:30", 2970)],
)
def test_durations_mean_what_slurm_means(text, value):
    assert minutes(text) == value


@pytest.mark.parametrize("text", ["", "90", "1w", "-5m", "0m", "1.5h", "soon", "00:00:59"])
def test_other_words_are_no_durations(text):
    with pytest.raises(ValueError, match=r"duration|minute"):
        minutes(text)


def test_method_over_data_set_over_profile(blobs, tmp_path):
    path = tmp_path / "clusters.yaml"
    path.write_text(
        "clusters:\n  a: {time: 1h, cpus: 2}\n  b:\n    time: 2h\n    memory: 8G\n"
        "    datasets: {synthetic: {memory: 16G, cpus: 3}}\n    methods: {late_sum: {memory: 32G}}\n"
    )
    name, profile = read_profile(path, "b", {"per_gpu": 2})
    assert (name, profile.per_gpu) == ("b", 2)
    concat, late = plan(Sweep(["concat", "late_sum"], [blobs], [0])).runs
    assert profile.request_for(concat) == Request(time="2h", memory="16G", cpus=3)
    assert profile.request_for(late) == Request(time="2h", memory="32G", cpus=3)
    assert read_profile(path)[0] == "a", "the first, where none is the default"


def test_an_unquoted_clock_which_yaml_takes_for_a_number_is_refused(tmp_path):
    path = tmp_path / "clusters.yaml"
    path.write_text("clusters: {a: {time: 12:00:00}}\n")
    with pytest.raises(UserError, match="time"):
        read_profile(path)


def test_options_of_sbatch_win_and_empty_ones_are_left_to_the_cluster():
    request = Request(time="2h", gpus=0, cpus=2, sbatch={"time": 5, "qos": "high"})
    assert sbatch_options(request) == {"time": 5, "cpus-per-task": 2, "qos": "high"}


def test_mounts_tell_the_file_system_of_a_path(tmp_path):
    assert file_system(tmp_path / "not" / "there") == file_system(tmp_path)
    assert file_system(tmp_path) != ""
    assert file_system(tmp_path.__class__("/dev/shm/x")) == "tmpfs"


# --- Slurm's commands, played by scripts ---------------------------------------------------------------------------


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """Put a script of that name first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def write(name, body):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)

    return write


QUEUE = "cat <<'END'\n7_0|RUNNING|n1|bench-x|None\n7_1|PENDING||bench-x|Resources\n8|OUT_OF_MEMORY|n2|bench-y|None\nEND"


def test_one_call_tells_the_state_of_every_job(plays):
    plays("squeue", QUEUE)
    assert scheduler.queue() == {
        "7_0": Job("RUNNING", "", "n1", "bench-x"),
        "7_1": Job("PENDING", "Resources", "", "bench-x"),
        "8": Job("OUT_OF_MEMORY", "", "n2", "bench-y"),
    }


def test_jobs_that_the_queue_forgot_are_asked_from_accounting_in_one_call(plays, tmp_path):
    plays(
        "sacct",
        f"echo x >> {tmp_path}/calls; cat <<'END'\n9|CANCELLED by 0|n3|bench-z\n9_1|TIMEOUT|None assigned|z\nEND",
    )
    found = scheduler.look_up(["7_0", "9", "9_1", "10"], {"7_0": Job("RUNNING")})
    assert {number: job.state for number, job in found.items()} == {
        "7_0": "RUNNING", "9": "CANCELLED", "9_1": "TIMEOUT", "10": GONE,
    }  # fmt: skip
    assert (tmp_path / "calls").read_text() == "x\n"
    assert found["10"].is_over
    assert "gone from the queue" in found["10"].words


@pytest.mark.parametrize("body", ["echo 'Slurm accounting storage is disabled' >&2; exit 1", "exit 0", "sleep 9"])
def test_accounting_that_fails_is_silent_or_slow_is_done_without(plays, monkeypatch, body):
    monkeypatch.setattr(scheduler, "PATIENCE", 0.5)
    plays("sacct", body)
    assert scheduler.look_up(["9"], {})["9"].state == GONE


def test_a_queue_that_does_not_answer_is_no_empty_queue(plays):
    plays("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(SilentError, match="Unable to contact"):
        scheduler.queue()


def test_partitions_have_limits_and_a_default(plays):
    plays("sbatch", "true")
    plays("sinfo", "cat <<'END'\ngpu*|1-12:00:00\nquick|30:00\nlong|infinite\nEND")
    assert scheduler.partitions() == {
        "gpu": Partition(2160, True), "quick": Partition(30, False), "long": Partition(None, False),
    }  # fmt: skip


# --- who is alive --------------------------------------------------------------------------------------------------


def beating(folder: RunFolder, ago: float) -> RunFolder:
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.beat()
    stamp = time.time() - ago
    os.utime(folder.path / ".heartbeat", (stamp, stamp))
    return folder


@pytest.mark.parametrize(("host", "ago", "alive"), [("far", 5, True), ("far", 500, False), (machine(), 5, False)])
def test_elsewhere_the_heartbeat_decides_and_here_the_lock(tmp_path, host, ago, alive):
    folder = beating(RunFolder(tmp_path), ago)
    assert folder.is_alive(Status(State.RUNNING, host=host)) == alive
    with folder.lock():
        assert folder.is_alive(Status(State.RUNNING, host=host))


def test_a_run_that_beats_elsewhere_is_not_touched_but_one_of_the_same_job_is_taken_over(tmp_path, blobs):
    from filelock import Timeout

    from benchmark.train.attempt import Attempt
    from benchmark.train.execute import execute

    spec = plan(Sweep(["concat"], [blobs], [0], recipe={"epochs": 1})).runs[0]
    folder = RunFolder(spec.folder(tmp_path))
    beating(folder, 1)
    folder.write_status(Status(State.RUNNING, 1, host="far", job="7_0"))
    with pytest.raises(Timeout):
        execute(spec, Attempt(tmp_path, job="8"))
    assert folder.read_status().attempts == 1
    assert execute(spec, Attempt(tmp_path, job="7_0")) is State.DONE
    assert folder.read_status().ends == ("no word from far",)


def test_the_scheduler_numbers_gpus_otherwise_than_torch(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [gpu_number(device) for device in ("cuda:0", "cuda:1", "cuda:2", "cpu")] == ["3", "5", "", ""]
