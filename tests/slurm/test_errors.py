"""What a cluster would refuse, or never run, is told before anything is submitted."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slurm


@pytest.fixture
def sweep(blobs):
    return ("run", "--methods", "concat", "--datasets", blobs, "--epochs", "1", "--on", "slurm", "--device", "cpu")


@pytest.fixture
def refused(bench, booked, sweep, tmp_path):
    """Run the sweep with a profile; return what it said, having proved that it left nothing behind."""

    def run(profile, *options, env=None, out="runs"):
        jobs = set(booked.queue())
        environment = {**booked.environment, **(env or {})}
        done = bench(*sweep, "--cluster", profile, "--out", out, *options, env=environment)
        assert done.rc == 2, done.said
        assert "error:" in done.stderr
        assert "Traceback" not in done.stderr
        assert set(booked.queue()) == jobs
        assert not list(tmp_path.rglob("terms.json"))
        return done.said

    return run


def test_a_partition_that_is_not_there_names_the_nearest(refused, profile):
    assert "Did you mean 'debug'?" in refused(profile(partition="debgu"))


def test_a_time_above_the_limit_of_the_partition_is_told(refused, profile, booked):
    booked.ask("scontrol", "update", "partition=high", "maxtime=5")
    said = refused(profile(partition="high", time="2h"))
    assert "at most 5 minutes in partition high" in said
    assert "2h (120 minutes)" in said


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"gpus": 7}, "node configuration is not available"),
        ({"memory": "900G"}, "node configuration is not available"),
        ({"constraint": "fast"}, "Invalid feature specification"),
    ],
    ids=["gpus", "memory", "constraint"],
)
def test_what_no_node_has_is_refused_in_slurms_words(refused, profile, wish, words):
    assert words in refused(profile(**wish))


def test_every_mistake_of_a_file_is_told_at_once(refused, profile):
    said = refused(profile(gpu=1, cpus=0, time="soon", methods="{concat: {tme: 1h}}"))
    assert "Did you mean 'gpus'?" in said
    assert "cpus" in said
    assert "90m, 12h" in said
    assert "Did you mean 'time'?" in said


def test_what_the_file_and_what_the_cluster_refuse_is_told_together(refused, profile):
    said = refused(profile(partition="debgu", methods="{concta: {time: 1h}}", memory="lots", sbatch="{array: 0-3}"))
    assert "Did you mean 'concat'?" in said
    assert "Did you mean 'debug'?" in said
    assert "an amount such as 900M or 16G" in said
    assert "no 'array'" in said


def test_other_profiles_of_the_file_may_be_broken(bench, booked, sweep, profile):
    file = profile(sbatch="{hold: true}")
    file.write_text("clusters:\n  other: {partition: debgu, cpus: 0, nonsense: 1}\n  odd: 7\n" + file.read_text()[10:])
    command = (*sweep, "--on", "slurm:test", "--cluster", file, "--out", "runs", "--detach")
    done = bench(*command, env=booked.environment)
    assert done.rc == 0, done.said
    assert bench("cancel", "--all", "--out", "runs", env=booked.environment).rc == 0


def test_an_unknown_cluster_names_the_nearest(bench, booked, sweep, profile):
    done = bench(*sweep, "--on", "slurm:tset", "--cluster", profile(), env=booked.environment)
    assert done.rc == 2
    assert "Did you mean 'test'?" in done.said


def test_without_a_profile_it_says_what_to_write(bench, sweep, tmp_path):
    done = bench(*sweep, env={"HOME": str(tmp_path)})
    assert done.rc == 2
    assert "clusters.yaml" in done.said
    assert "partition: gpu" in done.said


def test_where_no_cluster_is_configured_it_says_so(refused, profile):
    said = refused(profile(), env={"SLURM_CONF": "/dev/null"})
    assert "a cluster that answers" in said


def test_without_sbatch_it_names_the_login_node(refused, profile):
    assert "sbatch on PATH" in refused(profile(), env={"PATH": "/nowhere"})


def test_a_folder_in_memory_is_shared_with_nobody(refused, profile):
    folder = "/dev/shm/bench-test"
    try:
        assert "shared file system" in refused(profile(), out=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def alone(mount: str) -> tuple[str, ...]:
    """Return the start of a command that has mounts of its own, which no node sees."""
    return ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")


@pytest.fixture
def mounts():
    """Skip where this user may not mount."""
    if subprocess.run([*alone("true"), "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount file systems")


def test_a_full_disk_is_told_with_everything_else(bench, booked, sweep, profile, tmp_path, mounts):
    (tmp_path / "runs").mkdir()
    full = alone(f"mount -t tmpfs -o size=64k none '{tmp_path}/runs'")
    done = bench(*sweep, "--cluster", profile(), "--out", "runs", env=booked.environment, prefix=full)
    assert done.rc == 2
    assert "No space left on device" in done.said
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.full
def test_a_folder_that_nodes_do_not_see_is_found_out_and_leaves_nothing_in_the_queue(
    bench, booked, sweep, profile, tmp_path, mounts
):
    (tmp_path / "runs").mkdir()
    (tmp_path / "mine").mkdir()
    (tmp_path / "runs").chmod(0o500)
    hidden = alone(f"mount --bind '{tmp_path}/mine' '{tmp_path}/runs'")
    command = (*sweep, "--seeds", "0-9", "--cluster", profile(throttle=2), "--out", "runs")
    done = bench(*command, env=booked.environment, prefix=hidden)
    assert done.rc == 2, done.said
    assert "a folder that all nodes share" in done.said
    states = set(booked.queue().values())
    assert not states & {"PENDING", "RUNNING"}
