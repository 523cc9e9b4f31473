"""What a user does with a cluster: submit and leave, come back, look, cancel, try again, share a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from benchmark.records import State, scan
from benchmark.slurm.submission import Registry

pytestmark = pytest.mark.slurm

FATES = """
    import os
    import signal
    import time
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    HERE = Path({here!r})

    class Fates(Method):
        '''Waits in epoch 0 while `hold<seed>` exists, in epoch 1 while `late<seed>` does; dies of `kill<seed>`.'''

        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            seed = self.run.seed
            with (HERE / "ledger").open("a") as ledger:
                ledger.write(f"{{seed}} {{epoch}} {{os.environ.get('SLURM_ARRAY_TASK_ID')}}\\n")
            while (HERE / f"{{('hold', 'late')[epoch]}}{{seed}}").exists():
                time.sleep(0.02)
            if epoch == 0 and (HERE / f"kill{{seed}}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def fates(tmp_path, blobs):
    """Write the method and return the start of a command that trains it on a cluster."""
    (tmp_path / "fates.py").write_text(textwrap.dedent(FATES).format(here=str(tmp_path)))
    method = str(tmp_path / "fates.py")
    return ("run", "--methods", method, "--datasets", blobs, "--epochs", 2, "--batch-size", 16, "--out", "runs")


@pytest.fixture
def on_slurm(fates, profile):
    """Return a function that completes the command for a profile."""

    def complete(seeds, *options, **changes):
        place = ("--on", "slurm", "--cluster", profile(**changes), "--device", "cpu")
        return (*fates, "--seeds", seeds, *place, *options)

    return complete


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def ask(bench, booked):
    """Run `bench` with the cluster at hand."""
    return lambda *arguments: bench(*arguments, env=booked.environment)


def states(out: Path) -> dict[int, State]:
    return {run.seed: run.status.state for run in scan(out)}


def release(cluster) -> None:
    for number, state in cluster.queue().items():
        if state == "PENDING":
            cluster.ask("scontrol", "release", number)


def test_what_is_submitted_runs_as_it_was_whatever_is_edited_meanwhile(ask, booked, on_slurm, tmp_path, out):
    submit = on_slurm("0-1", "--detach", sbatch="{hold: true}")
    assert ask(*submit).rc == 0
    told = ask("status", "--out", "runs", "--json")
    assert [(row["state"], row["cause"]) for row in told.json] == [("queued", "waits: JobHeldUser")] * 2
    plugin = tmp_path / "fates.py"
    submitted = plugin.read_text()
    plugin.write_text(submitted.replace("class Fates", "raise RuntimeError('edited')\n\nclass Fates"))
    names = booked.ask("squeue", "--noheader", "--states=PENDING", "--format=%j|%k").splitlines()
    assert [line.partition(":")[0] for line in names] == ["mb-synthetic-fates|modalbench"]
    release(booked)
    done = ask("wait", "--out", "runs")
    assert done.rc == 0, done.said
    assert states(out) == {0: State.DONE, 1: State.DONE}
    for run in scan(out):
        job = {"id": run.status.job, "partition": "debug", "account": booked.account()}
        assert run.record.job == json.loads((run.folder.path / "env.json").read_text())["job"] == job
    (cost,) = ask("cluster", "cost", "--out", "runs", "--json").json
    assert (cost["method"], cost["runs"], cost["starts"]) == ("fates", 2, 2)
    assert cost["gpu_hours"] > 0
    assert cost["cpu_hours"] == pytest.approx(cost["gpu_hours"]), "a GPU and a CPU each"
    (diff,) = (path for path in out.glob(".snapshots/*/changes.diff"))
    version = diff.with_name("version.json").read_text()
    assert '"git"' in version
    plugin.write_text(submitted)
    again = ask(*submit)
    assert again.rc == 0
    assert "2 of 2 runs done" in again.said, "the same run, although it was trained from a copy"


def test_a_driver_that_died_while_submitting_leaves_nothing_to_be_done_twice(ask, booked, on_slurm, tmp_path, out):
    submit = on_slurm("0-1", sbatch="{hold: true}")
    before = booked.number_of_jobs()
    assert ask(*submit, "--detach").rc == 0
    registry = Registry(out)
    (submission,) = registry.open()
    (submission.path / "job").unlink()  # as if it had died after sbatch and before it could note the id
    never = registry.add(submission.terms.model_dump(), [[(task[0].folder, submission.specs_of(0)[0])]
                                                        for task in submission.plan[:1]])  # fmt: skip
    assert ask(*submit, "--detach").rc == 0
    assert booked.number_of_jobs() - before == 2
    assert submission.job
    assert never.is_closed
    release(booked)
    assert ask(*submit).rc == 0
    assert booked.number_of_jobs() - before == 2
    assert sorted(line.split()[:2] for line in (tmp_path / "ledger").read_text().splitlines()) == [
        [seed, epoch] for seed in "01" for epoch in "01"
    ]


def test_two_sweeps_on_one_folder_submit_every_run_once(start, booked, on_slurm, tmp_path, out):
    before = booked.number_of_jobs()
    drivers = [start(*on_slurm(seeds), env=booked.environment) for seeds in ("0-1", "1-2")]
    for driver in drivers:
        _, stderr = driver.communicate(timeout=120)
        assert driver.returncode == 0, stderr
    assert booked.number_of_jobs() - before == 3
    assert {seed: run.status.attempts for seed, run in ((run.seed, run) for run in scan(out))} == {0: 1, 1: 1, 2: 1}
    assert len((tmp_path / "ledger").read_text().splitlines()) == 6


def test_a_folder_may_have_any_name(ask, on_slurm, tmp_path):
    out = tmp_path / "ä 'b' $c \"d\" 50%A 日本" / ("long" * 40)
    done = ask(*on_slurm("0", "--out", out))
    assert done.rc == 0, done.said
    assert states(out) == {0: State.DONE}


def test_runs_that_share_a_job_do_not_share_their_fate(ask, booked, on_slurm, tmp_path, out):
    (tmp_path / "kill1").touch()
    before = booked.number_of_jobs()
    done = ask(*on_slurm("0-2", "--per-gpu", 3, "--retries", 1))
    assert done.rc == 3, done.said
    assert booked.number_of_jobs() - before == 1
    assert states(out) == {0: State.DONE, 1: State.FAILED, 2: State.DONE}
    (dead,) = (run for run in scan(out) if run.seed == 1)
    assert dead.status.attempts == 2
    assert dead.status.ends == ("killed (signal 9, SIGKILL, likely out of memory)",)
    assert "killed (signal 9" in dead.status.cause
    told = ask("status", "--out", "runs")
    assert told.rc == 3
    assert "killed (signal 9" in told.said

    (tmp_path / "kill1").unlink()
    retried = ask("retry", "--out", "runs")
    assert retried.rc == 0, retried.said
    assert states(out)[1] is State.DONE
    said = ask("logs", "synthetic fates s1", "--out", "runs")
    assert "attempt 3 of synthetic fates s1" in said.said


def test_cancelled_runs_stop_wherever_they_are_and_go_on_only_when_asked(
    ask, booked, on_slurm, start, tmp_path, out, wait_until
):
    for seed in (0, 1):
        (tmp_path / f"hold{seed}").touch()
    options = {"throttle": 1}
    driver = start(*on_slurm("0-3", "--per-gpu", 2, **options), env=booked.environment)
    wait_until(lambda: (tmp_path / "ledger").exists() and len((tmp_path / "ledger").read_text().splitlines()) == 2,
               "two runs at work")  # fmt: skip
    done = ask("cancel", "synthetic fates s1", "synthetic fates s2", "synthetic fates s3", "--out", "runs")
    assert done.rc == 0, done.said
    assert "3 runs cancelled" in done.said
    assert states(out) == {0: State.RUNNING, 1: State.CANCELLED, 2: State.CANCELLED, 3: State.CANCELLED}
    (tmp_path / "hold0").unlink()
    driver.communicate(timeout=120)
    assert driver.returncode == 3
    assert states(out)[0] is State.DONE
    assert ask("wait", "--out", "runs").said == "Nothing is at work."

    (tmp_path / "hold1").unlink()
    retried = ask("retry", "synthetic fates s1", "synthetic fates s2", "--out", "runs")
    assert retried.rc == 0, retried.said
    assert states(out) == {0: State.DONE, 1: State.DONE, 2: State.DONE, 3: State.CANCELLED}


def test_what_died_or_was_cancelled_goes_on_as_it_was_started_to_the_same_bits(
    ask, bench, booked, on_slurm, fates, start, tmp_path, out, wait_until, parent_of
):
    two_threads = ("--seeds", "0-1", "--threads", 2, "--device", "cpu", "--on", "inline", "--out", "inline")
    assert bench(*fates[:-2], *two_threads).rc == 0
    for seed in (0, 1):
        (tmp_path / f"late{seed}").touch()
    driver = start(*on_slurm("0-2", "--threads", 2, cpus=2), env=booked.environment)
    wait_until(lambda: states(out) == {0: State.RUNNING, 1: State.RUNNING, 2: State.DONE}, "two at work, one done")
    wait_until(lambda: all(run.status.epoch for run in scan(out)), "an epoch of each")
    driver.kill()
    driver.wait()
    assert ask("cancel", "synthetic fates s1", "--out", "runs").rc == 0
    (run,) = (run for run in scan(out) if run.seed == 0)
    os.kill(parent_of(parent_of(run.status.pid)), signal.SIGKILL)  # a worker's parent is the server it was forked from
    wait_until(lambda: not run.folder.is_alive() and booked.queue()[run.status.job] == "FAILED", "the job to be over")
    told = ask("status", "--out", "runs", "--json")
    assert (told.rc, [row["state"] for row in told.json]) == (0, ["interrupted", "cancelled", "done"]), "only looks"

    for seed in (0, 1):
        (tmp_path / f"late{seed}").unlink()
    done = ask("wait", "--out", "runs")
    assert done.rc == 3, "what is cancelled is not done"
    assert states(out) == {0: State.DONE, 1: State.CANCELLED, 2: State.DONE}
    retried = ask("retry", "--out", "runs")
    assert retried.rc == 0, retried.said
    assert ask("wait", "--out", "runs").rc == 0
    alone = {run.seed: run.folder.path for run in scan(tmp_path / "inline")}
    for run in (run for run in scan(out) if run.seed in alone):
        assert run.status.attempts == 2
        assert run.status.job, "on the cluster, as it was started"
        assert run.folder.read_threads() == 2
        for name in ("history.jsonl", "predictions.parquet", "embeddings.npz"):
            assert (run.folder.path / name).read_bytes() == (alone[run.seed] / name).read_bytes(), name


def test_what_a_limit_keeps_back_is_shown_and_submitted_by_waiting_even_after_a_silent_controller(
    ask, booked, on_slurm, start, out, wait_until
):
    with booked.limit(3):
        submit = on_slurm("0-3", "--detach", sbatch="{hold: true}")
        done = ask(*submit)
        assert done.rc == 0
        assert "1 not submitted yet: Slurm takes no more jobs of yours" in done.said
        told = ask("status", "--out", "runs", "--json").json
        assert [row["state"] for row in told] == ["queued", "queued", "queued", "planned"]
        assert "SubmitJobLimit" in told[3]["cause"]
        assert "bench wait" in told[3]["cause"]
        booked.stop_controller()
        try:
            silent = ask("status", "--out", "runs")
            assert silent.rc == 0
            assert "4 planned" in silent.said
            assert "Slurm does not answer" in silent.said
            driver = start("wait", "--out", "runs", env=booked.environment)
            line = driver.stdout.readline()
        finally:
            booked.start_controller()
        assert "Slurm does not answer" in line

        def all_over() -> bool:
            release(booked)
            return driver.poll() is not None

        wait_until(all_over, "all to be submitted and done")
    assert driver.returncode == 0
    assert states(out) == dict.fromkeys(range(4), State.DONE)
    assert not any(row["cause"] for row in ask("status", "--out", "runs", "--json").json)


def test_the_throttle_of_a_sweep_holds_over_all_its_arrays_without_a_driver(
    ask, booked, on_slurm, tmp_path, out, wait_until
):
    for seed in range(4):
        (tmp_path / f"hold{seed}").touch()
    before = booked.queue()
    assert ask(*on_slurm("0-3", "--detach", "--jobs", 2, array_size=1)).rc == 0

    def ours(state: str) -> int:
        return sum(found == state and number not in before for number, found in booked.queue().items())

    wait_until(lambda: ours("RUNNING") == 2, "two jobs at work")
    listed = booked.ask("squeue", "--noheader", "--states=PENDING", "--format=%i %r").splitlines()
    reasons = [line.split()[1] for line in listed if line.split()[0] not in before]
    assert reasons == ["Dependency", "Dependency"]
    for seed in (0, 1):
        (tmp_path / f"hold{seed}").unlink()
    wait_until(lambda: list(states(out).values()).count(State.DONE) == 2 and ours("RUNNING") == 2, "the next two")
    for seed in (2, 3):
        (tmp_path / f"hold{seed}").unlink()
    assert ask("wait", "--out", "runs").rc == 0


def test_a_limit_below_an_epoch_is_told_with_what_to_change(start, booked, on_slurm, tmp_path, wait_until):
    (tmp_path / "hold0").touch()
    driver = start(*on_slurm("0", "--retries", 0, time="1m", notice=10), env=booked.environment)
    wait_until((tmp_path / "ledger").exists, "the first epoch")
    (run,) = scan(tmp_path / "runs")
    booked.ask("scancel", "--signal=USR2", run.status.job)  # what comes before a time limit
    stdout, _ = driver.communicate(timeout=120)
    assert driver.returncode == 3
    assert "a job's limit of 60 s ended before epoch 1 of 2 did, which takes more than" in " ".join(stdout.split())
    assert "give it more with time:" in " ".join(stdout.split())


def test_submitting_from_inside_a_job_or_with_defaults_of_sbatch_changes_nothing(bench, booked, on_slurm, out):
    job = {"SLURM_MEM_PER_CPU": "300", "SLURM_JOB_ID": "1", "SLURM_CPU_BIND": "quiet,mask_cpu:0x3", "SLURM_NTASKS": "2"}
    defaults = {
        "SBATCH_EXPORT": "NONE",
        "SBATCH_PARTITION": "nowhere",
        "SBATCH_TIMELIMIT": "1",
        "SBATCH_ARRAY_INX": "7",
    }
    done = bench(*on_slurm("0"), env={**booked.environment, **job, **defaults})
    assert done.rc == 0, done.said
    assert states(out) == {0: State.DONE}


def test_a_run_whose_node_fails_goes_on(start, booked, on_slurm, tmp_path, out, wait_until):
    (tmp_path / "hold0").touch()
    driver = start(*on_slurm("0"), env=booked.environment)
    wait_until(lambda: states(out).get(0) is State.RUNNING, "the run to be at work")
    (run,) = scan(out)
    node = run.status.host
    booked.ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        wait_until(lambda: not run.folder.is_alive(), "the run to be gone with its node")
        (tmp_path / "hold0").unlink()
        _, stderr = driver.communicate(timeout=200)
    finally:
        with suppress(subprocess.CalledProcessError):  # it may have come back by itself
            booked.ask("scontrol", "update", f"nodename={node}", "state=resume")
    assert driver.returncode == 0, stderr
    (run,) = scan(out)
    assert run.record
    assert run.status.attempts == 2
    assert run.status.ends[0]


def test_where_nodes_cannot_requeue_the_driver_submits_again(start, booked, on_slurm, tmp_path, out, wait_until):
    (tmp_path / "hold0").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    before = booked.number_of_jobs()
    setup = f"['export PATH={tmp_path}/bin:$PATH']"
    driver = start(*on_slurm("0", setup=setup, notice=10), env=booked.environment)
    wait_until(lambda: states(out).get(0) is State.RUNNING, "the run to be at work")
    (run,) = scan(out)
    booked.ask("scancel", "--signal=USR2", run.status.job)  # what comes before a time limit
    wait_until(lambda: booked.number_of_jobs() - before == 2, "the driver to submit again")
    (tmp_path / "hold0").unlink()
    _, stderr = driver.communicate(timeout=200)
    assert driver.returncode == 0, stderr
    (run,) = scan(out)
    assert run.status.attempts == 2
    assert "stopped by" in run.status.ends[0]


def test_a_job_that_ends_before_its_run_starts_is_tried_again_and_given_up_with_what_it_said(
    ask, on_slurm, wait_until, out
):
    assert ask(*on_slurm("0", "--detach", setup="['echo no such module >&2', 'exit 1']")).rc == 0

    def seen() -> dict[str, str]:
        return ask("status", "--out", "runs", "--json").json[0]

    wait_until(lambda: seen()["state"] == "interrupted", "the job to be over")
    assert "no such module" in seen()["cause"], "before any driver has looked"
    done = ask(*on_slurm("0", "--retries", 1, setup="['echo no such module >&2', 'exit 1']"))
    assert done.rc == 3, done.said
    assert "2 attempts in a row finished no epoch" in done.said
    assert "no such module" in done.said
    told = ask("status", "--out", "runs", "--json")
    assert (told.rc, told.json[0]["run"], told.json[0]["state"]) == (3, "synthetic fates s0", "failed")
    assert "no such module" in ask("logs", "synthetic fates s0", "--out", "runs").said


def test_a_profile_is_proved_by_a_tiny_job(ask, profile):
    done = ask("cluster", "check", "--cluster", profile(gpus=0), "--out", "runs", "--json")
    assert done.rc == 0, done.said
    verdicts = {finding["name"]: finding["verdict"] for finding in done.json}
    assert set(verdicts.values()) == {"good"}
    assert {"python", "shared folder", "locks", "scontrol on nodes", "signals", "sacct"} <= set(verdicts)


def test_a_cluster_without_accounting_is_told_apart(bench, unbooked, profile):
    done = bench("cluster", "check", "--cluster", profile(gpus=0), "--out", "runs", "--json", env=unbooked.environment)
    assert done.rc == 0, done.said
    assert [finding["name"] for finding in done.json if finding["verdict"] != "good"] == ["sacct"]


def test_a_gpu_that_torch_does_not_see_is_missing(ask, profile):
    done = ask("cluster", "check", "--cluster", profile(gpus=1), "--out", "runs")
    assert done.rc == 3
    assert "torch sees none; asked for 1" in done.said
