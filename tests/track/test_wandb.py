"""Runs mirrored to W&B: offline, on a server, on one that misbehaves, and where W&B itself fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import pytest

from benchmark.records import State, scan

FINITE = (int, float)


def identity(run):
    return run.folder.path.name.split("-")[-1]


def flat(value, name=""):
    """Return the numbers of nested JSON by their path."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{name}/{key}").items()}
    if isinstance(value, list):
        return {k: v for key, inner in enumerate(value) for k, v in flat(inner, f"{name}/{key}").items()}
    return {name[1:]: value} if isinstance(value, FINITE) else {}


def without_empty(value):
    """Return nested values without empty mappings, which W&B does not keep."""
    if not isinstance(value, dict):
        return value
    return {key: without_empty(inner) for key, inner in value.items() if inner != {}}


def assert_shows(remote, run):
    """The server has every number of history and record under its path, once, and the spec."""
    history = run.folder.read_history()
    assert [row["_step"] for row in remote.rows] == list(range(len(history) + 1))
    for row, line in zip(remote.rows, history, strict=False):
        assert {key: value for key, value in row.items() if not key.startswith("_")} == flat(line)
    for name, value in flat(run.record.plain()["rules"]).items():
        assert remote.summary[name] == value
    assert remote.summary["state"] == "done"
    for key in ("method", "dataset", "recipe", "seed", "fingerprint"):
        assert remote.config[key] == without_empty(run.spec[key])
    tables = {name for name in remote.files if name.startswith("media/table/")}
    assert {"scores", "confusion/fused"} <= {name.split("tables/")[1].rpartition("_")[0][:-2] for name in tables}
    assert any(content.startswith(b"\x89PNG") for content in remote.files.values())


# --- offline -------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_without_a_key_a_run_is_written_offline_whole_and_nowhere_else(
    mirrored, out, only_run, home, server, sync_by_wandb
):
    done = mirrored()
    assert done.rc == 0, done.said
    assert "W&B: 1 of 1 runs written offline" in done.said
    assert "no API key" in done.said
    assert "no API key" in only_run().folder.log.read_text()
    (folder,) = out.glob(".wandb/offline-run-*")
    assert folder.name.endswith(identity(only_run()))
    assert not list((out / ".wandb" / "tmp").iterdir())
    assert not [path for path in home.rglob("*") if "wandb" in str(path)]
    sync_by_wandb(folder)
    (remote,) = server.runs.values()
    assert_shows(remote, only_run())
    assert remote.exit_code == 0


@pytest.mark.full
def test_tracking_changes_no_number_and_no_id(bench, mirrored, sweep, out, only_run):
    assert mirrored().rc == 0
    first = only_run()
    untracked = tuple(str(word) for word in sweep[:-2])
    assert bench(*untracked[:-1], "plain").rc == 0
    (second,) = scan(out.parent / "plain")
    assert second.folder.path.relative_to(out.parent / "plain") == first.folder.path.relative_to(out)
    for name in ("history.jsonl", "predictions.parquet", "spec.yaml"):
        assert (second.folder.path / name).read_bytes() == (first.folder.path / name).read_bytes()
    assert sorted(path.name for path in second.folder.path.iterdir()) == sorted(
        path.name for path in first.folder.path.iterdir()
    )


# --- on a server ---------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_run_is_shown_on_the_server_and_the_key_is_written_nowhere(bench, mirrored, sweep, out, only_run, server):
    done = mirrored(env={**server.environment, "WANDB_RUN_ID": "another", "WANDB_NAME": "another"})
    assert done.rc == 0, done.said
    assert "W&B: 1 of 1 runs mirrored" in done.said
    run = only_run()
    assert set(server.runs) == {identity(run)}
    remote = server.runs[identity(run)]
    assert_shows(remote, run)
    told = remote.described
    assert told["displayName"] == run.title
    assert told["groupName"] == f"{run.dataset}, unified"
    assert told["jobType"] == "train"
    assert set(told["tags"]) == {"concat", run.spec["dataset"]["name"], "unified"}
    assert remote.project == "modalbench"
    assert server.keys == {server.environment["WANDB_API_KEY"]}
    assert not list(out.glob(".wandb/*run-*")), "what the server has is not kept here"
    key = server.environment["WANDB_API_KEY"].encode()
    assert not [path for path in out.rglob("*") if path.is_file() and key in path.read_bytes()]

    sessions = remote.sessions
    assert bench(*sweep, env=server.environment).rc == 0
    assert bench("sync", "--out", "runs", env=server.environment).rc == 0
    assert remote.sessions == sessions, "what is there is left alone"


@pytest.mark.full
def test_a_run_that_is_killed_and_goes_on_is_one_run_there(bench, mirrored, plugin, out, only_run, server, blobs):
    body = """
        import os, signal
        from pathlib import Path
        from benchmark.method import Method, Reference
        from benchmark.model import concat_net

        class Dies(Method):
            reference = Reference("test")

            def build_net(self, task):
                return concat_net(task)

            def start_epoch(self, epoch):
                mark = Path("died")
                if epoch == 2 and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
    """
    command = ("run", "--methods", plugin("dies", body), "--datasets", blobs, "--epochs", 4, "--jobs", 1)
    first = bench(*command, "--track", "wandb", env=server.environment)
    assert first.rc == 3
    (remote,) = server.runs.values()
    assert [row["_step"] for row in remote.rows] == [0, 1]
    assert (remote.exit_code, remote.summary["state"]) == (1, "failed")
    second = bench(*command, "--track", "wandb", env=server.environment)
    assert second.rc == 0, second.said
    assert len(server.runs) == 1
    assert only_run().status.attempts == 2
    assert_shows(remote, only_run())
    assert remote.exit_code == 0


HOLDS = """
    import time
    from pathlib import Path
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    class Holds(Method):
        '''Waits in its third epoch while `hold` exists.'''

        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def start_epoch(self, epoch):
            while epoch == 2 and Path("hold").exists():
                time.sleep(0.02)
"""


def mirrors_of(pid):
    """Return the mirror processes that a launcher has started."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "benchmark.track" in row[2]]


@pytest.mark.full
@pytest.mark.parametrize("online", [True, False])
def test_a_mirror_that_is_killed_is_started_again_and_misses_nothing(
    start, home, plugin, blobs, tmp_path, out, only_run, server, sync_by_wandb, wait_until, online
):
    (tmp_path / "hold").touch()
    command = ("run", "--methods", plugin("holds", HOLDS), "--datasets", blobs, "--epochs", 4, "--jobs", 1)
    process = start(*command, "--track", "wandb", env=server.environment if online else None)
    wait_until(lambda: list(out.glob(".wandb/*run-*/run-*.wandb")), "the page of the run")
    wait_until(lambda: any(run.status.epoch == 2 for run in scan(out)), "two epochs")
    (mirror,) = mirrors_of(process.pid)
    os.kill(mirror, signal.SIGKILL)
    wait_until(lambda: mirrors_of(process.pid) not in ([], [mirror]), "another mirror")
    (tmp_path / "hold").unlink()
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    if not online:
        (folder,) = out.glob(".wandb/*run-*")
        sync_by_wandb(folder)
    assert_shows(server.runs[identity(only_run())], only_run())


# --- where W&B fails -----------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.parametrize(
    ("fault", "told"),
    [("hang", "did not answer"), ("deny", "does not take the key"), ("no project", "project not found")],
)
def test_a_server_that_takes_nothing_costs_no_run_and_is_told(bench, mirrored, out, only_run, server, fault, told):
    server.fault = fault
    done = mirrored(env=server.environment)
    assert done.rc == 0, done.said
    assert "1 of 1 runs done" in done.said
    assert "W&B: 1 of 1 runs written offline" in done.said
    assert told in done.said
    assert told in only_run().folder.log.read_text()
    failed = bench("sync", "--out", "runs", "--json", env=server.environment)
    assert failed.rc == 3
    assert [(row["outcome"], told in row["detail"]) for row in failed.json] == [("failed", True)]
    server.fault = ""
    assert bench("sync", "--out", "runs", env=server.environment).rc == 0
    assert_shows(server.runs[identity(only_run())], only_run())


@pytest.mark.full
@pytest.mark.parametrize("fault", ["lose rows", "lose files", "cut"])
def test_a_server_that_loses_what_it_is_sent_is_found_out(bench, mirrored, out, only_run, server, fault):
    server.fault = fault
    done = mirrored(env=server.environment)
    assert done.rc == 0, done.said
    assert "warning: W&B: 1 of 1 runs not mirrored: not everything has reached the server" in done.said
    server.fault = ""
    synced = bench("sync", "--out", "runs", env=server.environment)
    assert synced.rc == 0, synced.said
    remote = server.runs[identity(only_run())]
    again = [row["_step"] for row in remote.rows[len(only_run().folder.read_history()) :]]
    assert again in ([3], [3, 4]), "tables whose files were lost are sent once more"
    remote.history = {number: row for number, row in remote.history.items() if number <= 3}
    assert_shows(remote, only_run())


def told_at_the_end(done, words):
    assert done.rc == 0, done.said
    assert "1 of 1 runs done" in done.said
    assert f"warning: W&B: 1 of 1 runs not mirrored: {words}" in done.said


@pytest.mark.full
def test_wandb_that_is_not_installed_is_told(mirrored, tmp_path, only_run):
    (tmp_path / "shadow" / "wandb").mkdir(parents=True)
    (tmp_path / "shadow" / "wandb" / "__init__.py").write_text("raise ImportError('No module named wandb')")
    told_at_the_end(mirrored(env={"PYTHONPATH": str(tmp_path / "shadow")}), "not installed")
    assert only_run().status.state is State.DONE


@pytest.mark.full
def test_a_folder_that_cannot_be_written_is_told_and_nothing_goes_elsewhere(mirrored, out, tmp_path, home):
    out.mkdir()
    (out / ".wandb").write_text("a file")
    told_at_the_end(mirrored(env={"TMPDIR": str(tmp_path)}), f"cannot write to {out / '.wandb'}")
    assert not [path for path in tmp_path.rglob("*run-*") if "wandb" in path.name]


@pytest.mark.full
def test_notes_that_cannot_be_written_are_told(mirrored, out):
    out.mkdir()
    (out / ".track").write_text("a file")
    told_at_the_end(mirrored(), f"cannot write to {out / '.track'}")


@pytest.mark.full
def test_a_full_disk_is_told(mirrored, out):
    (out / ".wandb").mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(out / ".wandb")]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        done = mirrored()
    finally:
        subprocess.run(["umount", "-l", str(out / ".wandb")], check=True)
    assert done.rc == 0, done.said
    assert "1 of 1 runs done" in done.said
    assert "warning: W&B: 1 of 1 runs not mirrored" in done.said


def test_a_tool_that_is_none_is_bad_input(bench, sweep):
    done = bench(*sweep[:-1], "wandbb,tensorboard,mlflow")
    assert done.rc == 2
    assert "Did you mean 'wandb'?" in done.said
    assert "mlflow" in done.said


# --- bench sync ----------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_sync_uploads_what_was_only_offline_once_and_tells_what_it_did(bench, mirrored, out, only_run, server):
    assert mirrored("--seeds", "0-1").rc == 0
    (offline, _) = sorted(out.glob(".wandb/offline-run-*/run-*.wandb"))
    offline.write_bytes(offline.read_bytes()[:1000])  # records are what is uploaded, so this does not matter

    dry = bench("sync", "--out", "runs", "--dry-run", "--json", env=server.environment)
    assert (dry.rc, [row["outcome"] for row in dry.json]) == (0, ["to upload"] * 2)
    assert not server.runs
    damaged = next(scan(out)).folder.path / "record.json"  # the first to be uploaded
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    done = bench("sync", "--out", "runs", "--json", env=server.environment)
    assert done.rc == 3
    assert [row["outcome"] for row in done.json] == ["failed", "uploaded"]
    damaged.write_bytes(whole)
    done = bench("sync", "--out", "runs", "--json", env=server.environment)
    assert (done.rc, [row["outcome"] for row in done.json]) == (0, ["uploaded", "there"])
    for run in scan(out):
        assert_shows(server.runs[identity(run)], run)
    assert not list(out.glob(".wandb/*run-*"))
    other = bench("sync", "--out", "runs", "--dry-run", "--json", env={**server.environment, "WANDB_PROJECT": "x"})
    assert [row["outcome"] for row in other.json] == ["to upload"] * 2, "another project has nothing yet"


@pytest.mark.full
def test_sync_takes_runs_by_name_and_else_only_those_that_were_to_be_mirrored(bench, finished, home, tmp_path, server):
    shutil.copytree(finished, tmp_path / "runs")
    none = bench("sync", "--out", "runs", env=server.environment)
    assert none.rc == 0
    assert "No run in runs was to be mirrored" in none.said
    done = bench("sync", "* late_sum s1", "--out", "runs", "--json", env=server.environment)
    assert (done.rc, [row["outcome"] for row in done.json]) == (0, ["uploaded"])
    (run,) = [run for run in scan(tmp_path / "runs") if (run.method, run.seed) == ("late_sum", 1)]
    assert_shows(server.runs[identity(run)], run)
    assert bench("sync", "nothing", "--out", "runs").rc == 2


@pytest.mark.full
def test_sync_without_a_key_says_so(bench, finished, home, tmp_path):
    shutil.copytree(finished, tmp_path / "runs")
    done = bench("sync", "*concat*", "--out", "runs", "--json")
    assert done.rc == 3
    assert {(row["outcome"], row["detail"]) for row in done.json} == {("failed", "no API key")}


@pytest.mark.full
def test_experiment_files_may_say_it_and_name_the_group(bench, home, tmp_path, blobs, server):
    text = f"""
        methods: [concat]
        datasets: [{json.dumps(blobs)}]
        epochs: 2
        track: [wandb]
    """
    Path(tmp_path / "my-sweep.yaml").write_text(textwrap.dedent(text))
    done = bench("run", "my-sweep.yaml", "--jobs", 1, env=server.environment)
    assert done.rc == 0, done.said
    (remote,) = server.runs.values()
    assert remote.described["groupName"] == "my-sweep"
