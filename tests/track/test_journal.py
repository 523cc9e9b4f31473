"""What is to be mirrored and what has been, from notes on disk; no mirror is started."""

from __future__ import annotations

import os
import time

import pytest
from filelock import Timeout

from benchmark.errors import UserError
from benchmark.records import RunFolder, State, Status
from benchmark.track import mirroring
from benchmark.track.follow import id_of
from benchmark.track.journal import Entry, Ledger, digest_of
from benchmark.track.mirroring import Mirroring, below, parse_trackers


def test_the_sweep_that_asked_last_is_that_of_a_run(tmp_path):
    ledger = Ledger(tmp_path)
    assert ledger.asked("wandb") == {}
    ledger.ask(["wandb", "tensorboard"], "first", ["a", "b"])
    for path in ledger.path.glob("asked/*"):
        os.utime(path, (1, 1))
    ledger.ask(["wandb"], "second", ["b", "c"])
    assert ledger.asked("wandb") == {"a": "first", "b": "second", "c": "second"}
    assert ledger.asked("tensorboard") == {"a": "first", "b": "first"}
    (ledger.path / "asked" / "torn.json").write_text("{")
    (ledger.path / "asked" / "list.json").write_text("[1]")
    assert ledger.asked("tensorboard") == {"a": "first", "b": "first"}


def test_an_entry_is_read_as_it_was_noted(tmp_path):
    ledger, entry = Ledger(tmp_path), Entry("digest", "https://place", True, "slow", "server", 5.0)
    assert ledger.entry("wandb", "run") is None
    ledger.note("wandb", "run", entry)
    assert ledger.entry("wandb", "run") == entry
    assert ledger.entry("tensorboard", "run") is None


def test_one_process_mirrors_a_run(tmp_path):
    ledger = Ledger(tmp_path)
    with ledger.lock("wandb", "run"), pytest.raises(Timeout), ledger.lock("wandb", "run"):
        pass
    with ledger.lock("wandb", "run"):
        pass


def test_a_heartbeat_has_the_time_of_this_machine(tmp_path):
    ledger, began = Ledger(tmp_path), time.time()
    assert ledger.last_beat() == 0.0
    ledger.beat()
    assert began - 0.01 <= ledger.last_beat() <= time.time() + 0.01


def test_the_digest_is_of_state_history_and_record(made_up):
    folder = made_up()
    found = {digest_of(folder)}
    folder.append_history({"epoch": 2})
    found.add(digest_of(folder))
    folder.write_status(Status(State.FAILED))
    found.add(digest_of(folder))
    (folder.path / "record.json").unlink()
    found.add(digest_of(folder))
    assert len(found) == 4
    folder.log.write_text("said")
    assert digest_of(folder) in found


def test_tools_are_named_once_each_and_unknown_ones_told_together():
    assert parse_trackers("wandb,tensorboard, wandb") == ["wandb", "tensorboard"]
    assert parse_trackers([]) == []
    with pytest.raises(UserError) as caught:
        parse_trackers("wandbb,nothing")
    assert len(caught.value.problems) == 2
    assert "wandb" in str(caught.value)


@pytest.fixture
def sweep(made_up, tmp_path):
    """Four runs to be mirrored to both tools, before any mirror has begun, with a way to note what became of one."""
    folders = [made_up(seed=seed).path for seed in range(4)]
    found = Mirroring(["wandb", "tensorboard"], tmp_path / "runs", "mine", folders)
    ids = [id_of(task) for task in found.job.tasks]
    return found, lambda tool, number, **entry: found.ledger.note(tool, ids[number], Entry("digest", **entry))


def test_what_became_of_a_sweep_is_a_line_for_each_place_and_reason(sweep):
    found, note = sweep
    note("wandb", 0, place="https://one", is_remote=True)
    note("wandb", 1, place="https://two", is_remote=True)
    note("wandb", 2, place=".track/offline/run-2", problem="no key")
    for number in range(4):
        note("tensorboard", number, place="tb", is_remote=True)
    lines = found.remarks()
    assert "2 of 4 runs mirrored, such as https://one" in lines[0]
    assert "1 of 4 runs written offline to" in lines[1]
    assert "(no key); bench sync uploads them" in lines[1]
    assert "warning" in lines[2]
    assert "1 of 4 runs not mirrored: the mirror did not get to them; bench sync mirrors them" in lines[2]
    assert len(lines) == 4
    assert f"4 of 4 runs mirrored, such as {found.job.out}/tb" in lines[3], "a place on this machine has its whole path"


def test_what_an_earlier_sweep_left_is_not_of_this_one(sweep):
    found, note = sweep
    note("tensorboard", 0, place="tb", is_remote=True, noted=1.0)
    assert "4 of 4 runs not mirrored: the mirror did not get to them." in found.remarks()[1]


def test_a_sweep_without_tools_or_runs_has_no_mirror(made_up, tmp_path, monkeypatch):
    def start(*_):
        raise AssertionError

    monkeypatch.setattr(mirroring, "spawn", start)
    for tools, folders in (([], [made_up().path]), (["wandb"], [])):
        with Mirroring(tools, tmp_path / "runs", "", folders) as found:
            found.tick()
        assert found.remarks() == []
    assert not Ledger(tmp_path / "runs").path.exists()


class Ended:
    """A process that has ended at once."""

    pid = 2**22 + 1

    def __init__(self, code):
        self.returncode, self.stdin = code, open(os.devnull, "w")  # noqa: PTH123, SIM115

    def poll(self):
        return self.returncode

    def wait(self):
        return self.returncode


@pytest.mark.parametrize(("code", "starts"), [(1, 3), (0, 1)])
def test_a_mirror_that_dies_is_started_again_a_few_times_and_then_told(sweep, monkeypatch, code, starts):
    found, _ = sweep
    started = []
    monkeypatch.setattr(mirroring, "spawn", lambda job: started.append(job) or Ended(code))
    with found:
        for _ in range(6):
            found.tick()
    assert len(started) == starts
    assert ("ended 3 times unexpectedly" in " ".join(found.remarks())) == (code == 1)
    assert found.ledger.asked("wandb").keys() == {task.folder for task in found.job.tasks}


def test_a_mirror_that_cannot_be_started_is_told(sweep, monkeypatch):
    def fail(_):
        raise OSError(24, "too many files")

    found, _ = sweep
    monkeypatch.setattr(mirroring, "spawn", fail)
    with found:
        pass
    assert "the mirror could not be started (too many files)" in " ".join(found.remarks())


def test_a_run_is_named_by_its_folder_below_the_output_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert below(RunFolder(tmp_path / "runs" / "a" / "b").path, tmp_path.__class__("runs")) == "a/b"
