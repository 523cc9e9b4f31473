"""Profiles, what Slurm prints, and what is concluded from it: all that needs no cluster."""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace

import pytest

from benchmark.errors import Problems, UserError
from benchmark.launch.launch_options import LaunchOptions
from benchmark.launch.launcher import gpu_number
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status, machine
from benchmark.slurm import scheduler
from benchmark.slurm.accounting import Cost, costs_of
from benchmark.slurm.preflight import file_system, sbatch_options
from benchmark.slurm.profile import RESERVED, Profile, Request, load_profile, minutes, read_profile
from benchmark.slurm.scheduler import GONE, LIMIT, Job, Partition, SilentError
from benchmark.slurm.submission import Assignment, Registry, Turn
from benchmark.slurm.task import job_name, limit_words, note_limit
from benchmark.slurm.turns import Turns


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
    name, profile = load_profile(path, "b", Problems(), {"per_gpu": 2})
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


@pytest.mark.parametrize("name", [*RESERVED, "job_name", "--output", "o", "-J"])
def test_options_of_sbatch_that_are_ours_are_refused_by_name(tmp_path, name):
    path = tmp_path / "clusters.yaml"
    path.write_text(f"clusters: {{a: {{sbatch: {{{name!r}: 1, qos: high}}}}}}\n")
    with pytest.raises(UserError) as refusal:
        read_profile(path)
    (problem,) = refusal.value.problems
    assert repr(name) in problem.expected


def test_values_of_sbatch_are_refused_in_our_words(tmp_path):
    path = tmp_path / "clusters.yaml"
    path.write_text("clusters: {a: {sbatch: {qos: [a, b], wait: true}}}\n")
    with pytest.raises(UserError, match=r"a text, a number or true for 'qos' and no 'wait' \(bench wait waits\)"):
        read_profile(path)


def test_only_the_profile_that_is_asked_for_must_be_sound(tmp_path):
    path = tmp_path / "clusters.yaml"
    path.write_text("clusters:\n  a: {cpus: 2}\n  b: {cpus: 0, colour: red}\n  c: 3\n")
    assert read_profile(path, "a")[1].cpus == 2
    with pytest.raises(UserError) as refusal:
        read_profile(path, "b")
    assert len(refusal.value.problems) == 2, "all of its own mistakes"
    with pytest.raises(UserError, match="settings"):
        read_profile(path, "c")


def test_jobs_are_named_by_data_set_and_method(blobs):
    runs = plan(Sweep(["concat", "late_sum"], [blobs], [0, 1])).runs
    assert job_name(runs[:2]) == "mb-synthetic-concat"
    assert job_name(runs) == "mb-synthetic-2-methods"


def test_a_time_limit_below_an_epoch_names_limit_epoch_and_setting(tmp_path):
    folder = RunFolder(tmp_path)
    status = Status(State.INTERRUPTED, 1, 0, 25, job="7", stalled=1, started=100.0, updated=700.0)
    folder.write_status(status)
    note_limit(folder, 3600, "7")
    said = folder.read_status().cause
    assert "limit of 60 min ended before epoch 1 of 25 did, which takes more than 10 min" in said
    assert "time:" in said
    for other in (replace(status, stalled=0), replace(status, job="8"), replace(status, state=State.DONE)):
        folder.write_status(other)
        note_limit(folder, 3600, "7")
        assert folder.read_status() == other, "it finished an epoch, was of another job, or is over"
    assert "takes more" not in limit_words(status, 60, 0.0), "stopped before its first step"


# --- the limit of a sweep over its arrays --------------------------------------------------------------------------


class Array:
    """An array as Slurm would run it: at most `throttle` of its jobs at a time, none before another array is over."""

    def __init__(self, job, size, turn):
        self.job, self.size, self.turn = job, size, turn

    def board(self):
        return {f"{self.job}-{n}": Assignment(self, n, 0, f"{self.job}_{n}", Job("PENDING")) for n in range(self.size)}


@pytest.mark.parametrize("seed", range(30))
def test_arrays_never_work_on_more_jobs_than_the_limit_whenever_they_come_and_end(seed):
    rng = random.Random(seed)
    limit, queue = rng.randint(1, 6), []
    for round_ in range(12):
        board = {key: value for array in queue for key, value in array.board().items()}
        turns = Turns(limit, board)
        if rng.random() < 0.3 and (widest := turns.widest()):
            widest[0].turn = widest[0].turn.model_copy(update={"throttle": widest[1]})
            turns = Turns(limit, board)
        sizes = [rng.randint(1, 9) for _ in range(rng.randint(0, 3))]
        for place, size in enumerate(sizes):
            array = Array(f"{round_}-{place}", size, turns.next(size, sizes[place + 1 :]))
            turns.take(array.job, size, array.turn)
            queue.append(array)
        for _ in range(rng.randint(1, 4)):
            there = {array.job for array in queue}
            free = [array for array in queue if array.turn.after not in there]
            assert sum(min(array.turn.throttle, array.size) for array in free) <= limit
            assert free or not queue, "somebody works"
            for array in rng.sample(free, min(len(free), 2)):
                array.size -= rng.randint(1, min(array.turn.throttle, array.size))
            queue = [array for array in queue if array.size]


def test_without_a_limit_no_array_waits_for_another_and_with_one_it_is_used_up():
    assert Turns(0, {}).next(500, [500]) == Turn()
    turns = Turns(8, {})
    first = turns.next(30, [10])
    turns.take("1", 30, first)
    second = turns.next(10)
    assert (first.throttle, second.throttle) == (6, 2)


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


QUEUE = (
    "cat <<'END'\n7_0|RUNNING|n1|mb-x|modalbench:x|None\n7_1|PENDING||mb-x|modalbench:x|Resources\n"
    "8|OUT_OF_MEMORY|n2|other|(null)|None\nEND"
)


def test_one_call_tells_the_state_of_every_job(plays):
    plays("squeue", QUEUE)
    assert scheduler.queue() == {
        "7_0": Job("RUNNING", "", "n1", "mb-x", "modalbench:x"),
        "7_1": Job("PENDING", "Resources", "", "mb-x", "modalbench:x"),
        "8": Job("OUT_OF_MEMORY", "", "n2", "other", "(null)"),
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


def test_a_request_is_what_the_profile_says_whatever_surrounds_it(plays, monkeypatch):
    for name in ("SLURM_MEM_PER_CPU", "SLURM_JOB_ID", "SBATCH_EXPORT", "SBATCH_PARTITION", "SBATCH_QOS", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    plays("sinfo", "env")
    seen = {line.partition("=")[0] for line in scheduler.ask("sinfo", said=["partition"]).splitlines()}
    assert {name for name in seen if name.startswith(("SLURM", "SBATCH"))} == {"SLURM_CONF", "SBATCH_QOS"}
    with scheduler.clean_surroundings(["partition"]):
        assert "SLURM_JOB_ID" not in os.environ
    assert os.environ["SLURM_JOB_ID"] == "x"


def test_hours_and_waits_of_methods_count_every_start_and_share_what_runs_shared(plays, blobs, tmp_path):
    concat, late = plan(Sweep(["concat", "late_sum"], [blobs], [0])).runs
    profile = Profile(per_gpu=2)
    terms = {"options": LaunchOptions(out=tmp_path), "cluster": "a", "profile": profile, "request": Request(),
             "snapshot": "", "created": 0.0}  # fmt: skip
    runs = [(str(spec.folder(tmp_path).relative_to(tmp_path)), spec) for spec in (concat, late)]
    Registry(tmp_path).add(terms, [runs, runs[:1]]).note_job("7")
    day = "2026-01-01T"
    plays(
        "sacct",
        f"""cat <<'END'
7_0|{day}10:00:00|{day}10:00:30|3600|14400|billing=4,cpu=4,gres/gpu=2,node=1
7_0|{day}11:00:30|{day}11:02:00|1800|7200|cpu=4,gres/gpu=2
7_1|{day}10:00:00|Unknown|0|0|
8|{day}10:00:00|{day}10:00:00|3600|3600|cpu=1
END""",
    )
    one, other = costs_of(tmp_path)
    assert one == Cost("concat", 1, 2, gpu_hours=1.5, cpu_hours=3.0, wait=60.0, longest_wait=90.0)
    assert other == replace(one, method="late_sum")
    plays("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    with pytest.raises(UserError, match="a cluster with accounting"):
        costs_of(tmp_path)


def test_the_longest_array_is_what_the_cluster_says(plays):
    plays("scontrol", "cat <<'END'\nMailProg = x\nMaxArraySize            = 6\nEND")
    assert scheduler.max_array_size() == 6
    plays("scontrol", "echo MaxArraySize = 0")
    assert scheduler.max_array_size() == 1, "no arrays: one job at a time"


def test_a_limit_of_submitted_jobs_is_told_from_other_refusals():
    words = "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, ...)"
    for limit in ("AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit"):
        assert LIMIT.search(f"sbatch: error: {limit}\n{words}").group() == limit
    assert not LIMIT.search(f"sbatch: error: AssocMaxWallDurationPerJobLimit\n{words}")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("no such module\nsrun: error: n1: task 0: Exited with exit code 1\n", "no such module"),
        (
            "submitit INFO (now) - x\nMemoryError\nsrun: error: n1: task 0: Exited with exit code 1",
            "MemoryError",
        ),
        ("slurmstepd: error: Exceeded job memory limit\nsrun: Force Terminated StepId=7.0", "Exceeded job memory"),
        ("srun: error: n1: task 0: Exited with exit code 1\n", "Exited with exit code 1"),
        ("srun: fatal: SLURM_MEM_PER_CPU, SLURM_MEM_PER_NODE are mutually exclusive.", "mutually exclusive"),
    ],
)
def test_the_last_words_of_a_job_are_those_that_say_why(said, words):
    assert words in scheduler.last_words(said)


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
