"""A checkpoint is believed only if each byte is as written; else the run goes on from the one before, or anew."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from benchmark.errors import UserError
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status
from benchmark.robustness.evaluator import Evaluator
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute
from benchmark.train.saving import DIGEST, PREVIOUS_FILE, DamagedCheckpoint, check, load, save

RESULTS = ("history.jsonl", "predictions.parquet", "embeddings.npz")
STATE = {"epoch": 3, "method": {"a": torch.arange(12.0).reshape(3, 4)}, "choices": {"last": [1, [0.5]]}}


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def test_what_was_saved_is_loaded_here_and_by_torch_alone(tmp_path):
    save(tmp_path / "x.pt", STATE)
    for loaded in (load(tmp_path / "x.pt"), torch.load(tmp_path / "x.pt", weights_only=True)):
        assert loaded["choices"] == STATE["choices"]
        assert torch.equal(loaded["method"]["a"], STATE["method"]["a"])


def test_no_flipped_bit_passes_and_no_cut_either(tmp_path):
    save(tmp_path / "x.pt", STATE)
    sound = (tmp_path / "x.pt").read_bytes()
    check(sound)
    for bit in range(8 * len(sound)):
        content = bytearray(sound)
        content[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedCheckpoint):
            check(bytes(content))
    for size in range(0, len(sound), 7):
        with pytest.raises(DamagedCheckpoint):
            check(sound[:size])


def test_a_checkpoint_from_before_there_were_digests_is_read_and_checked_by_its_parts(tmp_path):
    torch.save(STATE, tmp_path / "x.pt")
    assert load(tmp_path / "x.pt")["epoch"] == 3
    save(tmp_path / "new.pt", STATE)
    assert len((tmp_path / "new.pt").read_bytes()) > DIGEST
    tensor = STATE["method"]["a"].numpy().tobytes()
    flip(tmp_path / "x.pt", 8 * (tmp_path / "x.pt").read_bytes().index(tensor) + 3)
    with pytest.raises(DamagedCheckpoint, match="checksum"):
        load(tmp_path / "x.pt")


@pytest.fixture(scope="module")
def spec(blobs):
    return plan(Sweep(["concat"], [blobs], [0], recipe={"epochs": 3, "batch_size": 16})).runs[0]


@pytest.fixture(scope="module")
def expected(spec, tmp_path_factory):
    """What the run leaves when nothing happens to it."""
    out = tmp_path_factory.mktemp("expected")
    assert execute(spec, Attempt(out)) is State.DONE
    return results(RunFolder(spec.folder(out)))


def results(folder):
    return {name: (folder.path / name).read_bytes() for name in RESULTS}


@pytest.fixture
def stopped(spec, tmp_path, monkeypatch):
    """A run that was stopped after two of its three epochs."""
    from benchmark.train import execute as module

    monkeypatch.setattr(module, "finish", lambda *_: os.abort())
    monkeypatch.setattr(module.Trainer, "run_epoch", stop_after(2, module.Trainer.run_epoch))
    assert execute(spec, Attempt(tmp_path)) is State.INTERRUPTED
    monkeypatch.undo()
    return RunFolder(spec.folder(tmp_path))


def stop_after(epochs, run_epoch):
    def limited(self):
        if self.epoch == epochs:
            raise KeyboardInterrupt
        return run_epoch(self)

    return limited


@pytest.mark.parametrize(
    ("damaged", "words", "epoch"),
    [
        (["last.pt"], "last.pt cannot be used (its digest is not that of its bytes), went on from epoch 1", 1),
        (["last.pt", PREVIOUS_FILE], "started over", 0),
        (["best_valid.pt"], "started over", 0),
        ([], "", 2),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_run_ends_with_the_same_bytes(
    spec, stopped, tmp_path, expected, damaged, words, epoch
):
    random.seed(1)
    for name in damaged:
        path = stopped.checkpoints / name
        flip(path, random.randrange(8 * path.stat().st_size))
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    status = stopped.read_status()
    assert status.ends[-1].endswith(words)
    assert status.first_epoch == epoch
    assert results(stopped) == expected
    assert not (stopped.checkpoints / PREVIOUS_FILE).exists()


def test_a_model_with_a_flipped_bit_is_not_evaluated(spec, stopped, tmp_path):
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    flip(stopped.checkpoints / "best_valid.pt", 8000)
    with pytest.raises(UserError, match="digest"):
        Evaluator(None, torch.device("cpu")).evaluate(stopped)


# --- what killed writes leave --------------------------------------------------------------------------------------


def test_what_killed_writes_left_is_gone_after_the_next_attempt_and_nothing_else(spec, stopped, tmp_path):
    litter = [stopped.path / ".status.json.abc_12x9", stopped.checkpoints / ".last.pt.00000000"]
    own = [stopped.path / ".my.notes", stopped.path / "status.json.abc_12x9", stopped.path / ".heartbeat"]
    for path in litter + own:
        path.write_text("x")
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    assert not any(path.exists() for path in litter)
    assert all(path.exists() for path in own)


# --- a disk that is full -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["status.json", "env.json", "record.json", "checkpoint/last.pt"])
def test_a_run_whose_file_cannot_be_written_fails_and_raises_nothing(spec, tmp_path, monkeypatch, name):
    from benchmark.records import files
    from benchmark.train import saving

    real = files.write_atomic

    def full(path, content):
        if str(path).endswith(name):
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(files, "write_atomic", full)
    monkeypatch.setattr(saving, "write_atomic", full)
    assert execute(spec, Attempt(tmp_path)) is State.FAILED
    status = RunFolder(spec.folder(tmp_path)).last_status()
    assert status == Status() if name == "status.json" else "No space left" in status.cause
    monkeypatch.undo()
    assert execute(spec, Attempt(tmp_path)) is State.DONE


def test_a_checkpoint_holds_plain_values_only_and_what_it_could_run_is_not_run(tmp_path):
    save(tmp_path / "x.pt", {"harmful": Path("anything that is no plain value")})
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        load(tmp_path / "x.pt")
