"""The command line: what it prints, what it exits with, what it leaves alone. What trains has a process of its own."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmark.records import State, scan


@pytest.fixture
def copied(finished, tmp_path):
    """A finished sweep that a test may damage, and the command that made it."""
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def again(blobs):
    """The command that made the finished sweep."""
    return (
        "run", "--methods", "concat,late_sum", "--datasets", blobs,
        "--seeds", "0-1", "--epochs", "3", "--jobs", "2", "--out", "runs",
    )  # fmt: skip


def snapshot(folder):
    """Return modification time and content of every file of a folder but locks, and the heartbeats of slow runs."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", ".heartbeat")]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def one_record(out, method="concat", seed=0):
    (run,) = [run for run in scan(out) if (run.method, run.seed) == (method, seed)]
    return run.folder.path / "record.json"


# --- a finished sweep ----------------------------------------------------------------------------------------------


def test_a_sweep_leaves_a_done_run_with_all_its_files_for_every_combination(finished):
    runs = {(run.method, run.seed): run for run in scan(finished)}
    assert set(runs) == {(method, seed) for method in ("concat", "late_sum") for seed in (0, 1)}
    for run in runs.values():
        assert (run.status.state, run.status.attempts, run.problem) == (State.DONE, 1, "")
        assert [line["epoch"] for line in run.folder.read_history()] == [0, 1, 2]
        assert set(run.record.rules) == {"best_valid", "last", "oracle_test"}
        for name in ("spec.yaml", "env.json", "log.txt", "predictions.parquet", "embeddings.npz"):
            assert (run.folder.path / name).stat().st_size > 0


def test_the_same_command_again_trains_nothing_and_touches_no_file(bench, copied, again):
    before = snapshot(copied)
    done = bench(*again)
    assert done.rc == 0
    assert "4 of 4 runs done" in done.said
    assert "running" not in done.said
    assert snapshot(copied) == before


def test_a_dry_run_starts_nothing_and_says_what_would_run(bench_here, copied, again):
    before = snapshot(copied)
    done = bench_here(*again, "--dry-run", "--set", "late_sum.hidden=4")
    assert done.rc == 0
    assert "2 of 4 runs to do" in done.said
    assert snapshot(copied) == before


def test_a_dry_run_as_json_lists_runs_and_unsupported_combinations(bench_here, blobs, tmp_path):
    methods = "concat,unimodal[modality=smell]"
    done = bench_here("run", "--methods", methods, "--datasets", blobs, "--seeds", "0-2", "--dry-run", "--json")
    assert done.rc == 0
    assert [run["state"] for run in done.json["runs"]] == ["to run"] * 3
    (unsupported,) = done.json["unsupported"]
    assert "smell" in unsupported["reason"]
    assert not list(tmp_path.rglob("spec.yaml"))


def test_json_of_a_sweep_parses_and_holds_every_run(bench, copied, again):
    rows = bench(*again, "--json").json
    assert {(row["method"], row["seed"], row["state"]) for row in rows} == {
        (method, seed, "done") for method in ("concat", "late_sum") for seed in (0, 1)
    }


@pytest.mark.full
def test_force_trains_again_to_the_same_numbers(bench, copied, again):
    before = snapshot(copied)
    assert bench(*again, "--methods", "concat", "--seeds", "0", "--force").rc == 0
    after = snapshot(copied)
    started = {name for name in set(after) - set(before) if name.startswith(".sweeps")}
    assert len(started) == 1, "how it was started is on record"
    assert set(after) - started == set(before), "the same files as before, the log included"
    changed = {name for name in before if before[name][0] != after[name][0]}
    assert changed
    assert all("/concat/" in f"/{name}" and "/s0-" in name for name in changed)
    assert all(before[name][1] == after[name][1] for name in changed if name.endswith(("jsonl", "parquet")))


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_truncated_record_is_told_by_status_survived_by_report_and_repaired_by_run(bench, copied, again):
    record = one_record(copied)
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])

    status = bench("status", "--out", "runs")
    assert status.rc == 3
    assert "record.json: truncated or damaged" in status.said
    report = bench("report", "--out", "runs", "--to", "report")
    assert report.rc == 0
    assert "warning" in report.said
    assert "record.json" in report.said
    assert "concat" in (copied.parent / "report" / "comparison.md").read_text()

    assert bench(*again).rc == 0
    assert set(json.loads(record.read_bytes())) == set(json.loads(whole))
    assert bench("status", "--out", "runs").rc == 0


def test_status_as_json_tells_of_damage_and_of_everything_else(bench, copied):
    one_record(copied).unlink()
    done = bench("status", "--out", "runs", "--json")
    assert len(done.json) == 4
    assert [bool(row["cause"]) for row in done.json].count(True) == 1
    assert done.rc == 3, "the exit code is the same for people and for machines"


# --- bad input: exit code 2, a message, no files -------------------------------------------------------------------

BAD = [
    (["--methods", "concta"], ["concta", "Did you mean 'concat'?"]),
    (["--methods", "./nowhere.py"], ["nowhere.py", "no such file"]),
    (["--methods", "late_sum[hiden=3]"], ["hiden", "Did you mean 'hidden'?"]),
    (["--methods", "late_sum[hidden=3"], ["brackets"]),
    (["--methods", ""], ["--methods", "at least one method"]),
    (["--datasets", "nonsense"], ["nonsense", "known data set"]),
    (["--datasets", ""], ["--datasets", "at least one data set"]),
    (["--seeds", "x"], ["--seeds", "'x'"]),
    (["--seeds", ""], ["--seeds"]),
    (["--protocol", "unifed"], ["unifed", "Did you mean 'unified'?"]),
    (["--set", "late_sum.hidden"], ["--set", "target.key=value"]),
    (["--set", "latesum.hidden=3"], ["latesum", "Did you mean"]),
    (["--set", "late_sum.hidden=deep"], ["late_sum", "integer", "deep"]),
    (["--set", "protocol.epoch=3"], ["epoch", "Did you mean 'epochs'?"]),
    (["--epochs", "0"], ["epochs", "greater than or equal to 1"]),
    (["--precision", "fp64"], ["precision", "fp64"]),
    (["--device", "gpu"], ["--device", "'gpu'", "cpu"]),
    (["--jobs", "0"], ["--jobs", "0"]),
]


@pytest.mark.parametrize(("wrong", "words"), BAD, ids=[" ".join(wrong) for wrong, _ in BAD])
def test_bad_input_exits_with_2_says_why_and_leaves_no_file(bench_here, blobs, tmp_path, wrong, words):
    good = {"--methods": "late_sum", "--datasets": blobs, "--seeds": "0", "--out": "runs"}
    options = {**good, wrong[0]: wrong[1]}
    done = bench_here("run", *(part for pair in options.items() for part in pair))
    assert done.rc == 2, done.said
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
    assert not [word for word in words if word not in done.said], done.said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_process_of_its_own_ends_with_the_same_code_and_message(bench, blobs, tmp_path):
    wrong, words = BAD[0]
    done = bench("run", *wrong, "--datasets", blobs, "--out", "runs")
    assert done.rc == 2
    assert done.stderr.startswith("error:")
    assert not [word for word in words if word not in done.said]
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_an_output_folder_below_a_file_is_refused(bench_here, blobs, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = bench_here("run", "--methods", "concat", "--datasets", blobs, "--out", "file/runs")
    assert done.rc == 2
    assert "--out" in done.said
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_reporting_on_nothing_says_what_to_do(bench_here, tmp_path):
    done = bench_here("report", "--out", "nothing", "--to", "report")
    assert done.rc == 2
    assert "bench run" in done.said
    assert not list(tmp_path.iterdir())


def test_an_unknown_report_names_the_nearest(bench_here, finished):
    done = bench_here("report", "comparisn", "--out", finished)
    assert done.rc == 2
    assert "Did you mean 'comparison'?" in done.said


def test_checking_or_listing_an_unknown_plugin_names_the_nearest(bench_here):
    for words in (("check", "concta"), ("list", "concta")):
        done = bench_here(*words)
        assert done.rc == 2
        assert "Did you mean 'concat'?" in done.said


def test_files_that_are_missing_are_told_before_anything_is_trained(bench_here, plugin, tmp_path):
    data = plugin("needy", NEEDY)
    done = bench_here("run", "--methods", "concat", "--datasets", data, "--data-root", "/no/such/root", "--out", "runs")
    assert done.rc == 2
    assert "/no/such/root/needy" in done.said
    assert not (tmp_path / "runs").exists()


NEEDY = """
    from benchmark.errors import Problem, UserError
    from benchmark.check.synthetic import Blobs

    class Needy(Blobs):
        def fingerprint(self):
            raise UserError(Problem("data set needy", "files", f"none in {self.root}", "Get them."))
"""

# --- experiments ---------------------------------------------------------------------------------------------------


def test_an_experiment_file_means_what_its_options_mean_and_options_win(bench_here, blobs, tmp_path):
    text = f"methods: [concat, late_sum]\ndatasets: [{blobs}]\nseeds: 0-3\nepochs: 2\nset: [late_sum.hidden=4]\n"
    (tmp_path / "mine.yaml").write_text(text)
    done = bench_here("run", "mine.yaml", "--seeds", "7", "--dry-run", "--json")
    assert done.rc == 0, done.said
    assert {run["run"] for run in done.json["runs"]} == {"synthetic concat s7", "synthetic late_sum[hidden=4] s7"}


def test_an_unknown_key_of_an_experiment_names_the_nearest(bench_here, blobs, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"methods: [concat]\ndatasets: [{blobs}]\nseds: 0-3\n")
    done = bench_here("run", "mine.yaml")
    assert done.rc == 2
    assert "Did you mean 'seeds'?" in done.said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_a_missing_experiment_file_is_told(bench_here):
    done = bench_here("run", "nowhere.yaml")
    assert done.rc == 2
    assert "nowhere.yaml" in done.said


def test_status_tells_the_command_that_shows_what_a_failed_run_said(bench_here, made_up, blobs):
    folder = made_up("concat", 0, state=State.FAILED, cause="NonFiniteLoss: loss became NaN")
    made_up("concat", 1, state=State.FAILED, cause="the same")
    made_up("concat", 2)
    folder.log.write_text("Traceback: the line that failed\n")
    done = bench_here("status", "--out", "runs")
    assert done.rc == 3
    command = f"bench logs {folder.path.name}"
    assert f"{command} (and so for 1 more)" in done.said
    assert "the line that failed" in bench_here(*command.split()[1:]).said


def test_nothing_failed_is_nothing_to_look_at(bench_here, made_up):
    made_up("concat", 0)
    assert "bench logs" not in bench_here("status").said


def test_the_version_is_printed(bench_here):
    from benchmark import __version__

    done = bench_here("--version")
    assert (done.rc, done.stdout.strip()) == (0, f"modalbench {__version__}")


@pytest.mark.parametrize("name", ["unified", "aug2025", "comparison", "concat", "dialpad"])
def test_whatever_the_list_names_can_be_listed(bench_here, name):
    done = bench_here("list", name)
    assert done.rc == 0, done.said
    assert name in done.stdout


def test_an_experiment_may_say_where_its_runs_are(bench_here, tmp_path):
    text = "methods: [concat]\ndatasets: [dialpad]\nepochs: 1\nout: elsewhere\n"
    (tmp_path / "mine.yaml").write_text(text)
    done = bench_here("run", "mine.yaml", "--dry-run", "--json")
    assert [run["folder"].startswith("elsewhere/") for run in done.json["runs"]] == [True]
    done = bench_here("run", "mine.yaml", "--dry-run", "--json", "--out", "here")
    assert [run["folder"].startswith("here/") for run in done.json["runs"]] == [True]
