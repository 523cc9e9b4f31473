"""Records survive crashes, tell damage in words, and know whether somebody is at work on a run."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.records import (
    SCHEMA,
    RecordError,
    RunFolder,
    State,
    Status,
    files,
    scan,
    to_json,
    view,
    view_all,
    views,
    write_atomic,
)


def test_what_was_written_is_read_back_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "new" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert [found.name for found in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content_and_no_litter(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os if step == "fsync" else files.Path, step, fail)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_write_killed_halfway_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    code = "import os, sys, pathlib, benchmark.records.files as r\n"
    code += "r.os.fsync = lambda fd: os.kill(os.getpid(), 9)\n"
    code += "r.write_atomic(pathlib.Path(sys.argv[1]), b'new' * 1000)"
    done = subprocess.run([sys.executable, "-P", "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_json_is_strict_sorted_and_the_same_for_the_same_values():
    assert to_json({"b": 1, "a": "ü"}) == to_json({"a": "ü", "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        to_json({"a": float("nan")})


# --- history -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [b'{"epoch": 2, "val', b'{"epoch": 2}', b"\xff\xfe", b""])
def test_a_torn_last_line_of_the_history_is_left_out(made_up, torn):
    folder = made_up()
    with (folder.path / "history.jsonl").open("ab") as stream:
        stream.write(torn)
    assert [line["epoch"] for line in folder.read_history()] == [0, 1]


def test_cutting_a_torn_history_leaves_whole_lines_that_can_be_continued(made_up):
    folder = made_up()
    whole = (folder.path / "history.jsonl").read_bytes()
    (folder.path / "history.jsonl").write_bytes(whole + b'{"epo')
    folder.cut_history(2)
    assert (folder.path / "history.jsonl").read_bytes() == whole
    folder.cut_history(1)
    folder.append_history({"epoch": "again"})
    assert [line["epoch"] for line in folder.read_history()] == [0, "again"]


def test_a_history_shorter_than_the_checkpoint_is_an_error(made_up):
    with pytest.raises(RecordError, match=r"2 whole lines.*3 epochs"):
        made_up().cut_history(3)


def test_no_history_is_an_empty_one(tmp_path):
    assert RunFolder(tmp_path).read_history() == []


# --- damage --------------------------------------------------------------------------------------------------------


def truncate(name):
    def damage(folder):
        path = folder.path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


DAMAGE = {
    "record truncated": (truncate("record.json"), "record.json: truncated or damaged"),
    "record empty": (lambda folder: (folder.path / "record.json").write_bytes(b""), "record.json: truncated"),
    "record is a list": (lambda folder: (folder.path / "record.json").write_bytes(b"[1]"), "record.json"),
    "record without files": (lambda folder: folder.write("record.json", {"schema": SCHEMA}), "record.json"),
    "record gone": (lambda folder: (folder.path / "record.json").unlink(), "record.json: expected a file, got none"),
    "schema of tomorrow": (
        lambda folder: folder.write("record.json", {**folder.plain_record(), "schema": 99}),
        f"expected schema {SCHEMA} or older, got 99, made by a newer ModalBench; update",
    ),
    "predictions cut": (truncate("predictions.parquet"), "predictions.parquet: expected 11 bytes, got 5"),
    "predictions gone": (lambda folder: folder.predictions.unlink(), "predictions.parquet: expected 11 bytes, got 0"),
    "status truncated": (truncate("status.json"), "status.json: truncated or damaged"),
    "status of another version": (lambda folder: folder.write("status.json", {"state": "happy"}), "status.json"),
    "spec empty": (lambda folder: (folder.path / "spec.yaml").write_bytes(b""), "spec.yaml: truncated or damaged"),
    "spec binary": (lambda folder: (folder.path / "spec.yaml").write_bytes(b"\xff\xfe\x00"), "spec.yaml: truncated"),
    "spec truncated to YAML that parses": (lambda folder: folder.write("spec.yaml", {"seed": 0}), "spec.yaml"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_in_words_and_hides_no_other_run(made_up, tmp_path, case):
    damage, words = DAMAGE[case]
    damaged, sound = made_up(seed=0), made_up(seed=1)
    damage(damaged)
    views = {found.folder.path: found for found in scan(tmp_path / "runs")}
    assert words in views[damaged.path].problem
    assert views[damaged.path].record is None
    assert not damaged.is_done()
    assert views[sound.path].problem == ""
    assert views[sound.path].record
    assert sound.is_done()


def test_a_run_that_never_started_is_planned(made_up):
    folder = made_up(state=State.RUNNING)
    (folder.path / "status.json").unlink()
    assert view(folder).status == Status()
    assert not folder.is_done()


def test_a_status_survives_being_written(tmp_path):
    status = Status(State.FAILED, 3, 7, 10, 0.5, "killed", "host", 12, "cuda:1", 1.0, 2.0, 4)
    RunFolder(tmp_path).write_status(status)
    assert RunFolder(tmp_path).read_status() == status


def test_time_left_follows_the_pace_of_the_current_attempt_only():
    status = Status(State.RUNNING, epoch=6, epochs=10, started=100.0, updated=120.0, first_epoch=4)
    assert status.eta == 40.0
    assert Status(State.RUNNING, epoch=4, epochs=10, first_epoch=4).eta is None


def test_clearing_removes_results_and_keeps_the_lock(made_up):
    folder = made_up()
    folder.checkpoints.mkdir()
    (folder.checkpoints / "last.pt").write_bytes(b"x")
    with folder.lock():
        folder.clear()
        assert folder.is_locked()
    assert {path.name for path in folder.path.rglob("*")} <= {".lock"}


# --- who is at work ------------------------------------------------------------------------------------------------

HOLD = "import sys, time, pathlib; from benchmark.records import RunFolder\n"
HOLD += "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('locked', flush=True); time.sleep(600)"


def test_a_lock_is_seen_while_its_process_lives_and_gone_when_it_is_killed(made_up, wait_until):
    folder = made_up(state=State.RUNNING)
    assert not folder.is_locked()
    assert view(folder).status.state is State.INTERRUPTED
    holder = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "locked\n"
        assert folder.is_locked()
        assert view(folder).status.state is State.RUNNING
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    wait_until(lambda: not folder.is_locked(), "the system to free the lock")
    assert view(folder).status.state is State.INTERRUPTED
    with folder.lock():
        pass


def test_asking_whether_a_run_is_locked_does_not_lock_or_create_anything(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_locked()
    assert not folder.path.exists()


def test_those_who_ask_whether_a_run_is_locked_do_not_take_each_other_for_its_worker(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock():
        pass
    with (tmp_path / ".lock").open("rb") as asker:
        fcntl.flock(asker, fcntl.LOCK_SH)
        assert not folder.is_locked()


def test_a_folder_that_vanishes_while_runs_are_listed_is_left_out(tmp_path, monkeypatch):
    gone = tmp_path / "data" / "method"
    gone.mkdir(parents=True)
    listed = views._visible

    def removed(folder):
        entries = listed(folder)
        if Path(folder) == tmp_path / "data":
            gone.rmdir()
        return entries

    monkeypatch.setattr(views, "_visible", removed)
    assert list(scan(tmp_path)) == []


def test_all_runs_are_read_at_once_as_they_are_one_by_one(made_up, tmp_path):
    for seed in (3, 1, 2):
        made_up("concat", seed)
    (made_up("damaged", 0).path / "record.json").write_text("{")
    assert view_all(tmp_path / "runs") == list(scan(tmp_path / "runs"))
    assert len(view_all(tmp_path / "runs")) == 4
    assert view_all(tmp_path / "nowhere") == []
