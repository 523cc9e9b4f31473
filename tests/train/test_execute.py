"""One run in one process: what it leaves behind, and that no damage short of losing the disk stops the next attempt."""

from __future__ import annotations

import os

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from filelock import Timeout

from benchmark.api.trained_model import load_model
from benchmark.errors import Problem, UserError
from benchmark.metrics import METRICS
from benchmark.plan.spec import load_method
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, Status, view
from benchmark.train.attempt import Attempt
from benchmark.train.execute import describe, execute

RESULTS = ("history.jsonl", "predictions.parquet", "embeddings.npz")


@pytest.fixture
def spec_of(blobs):
    """Plan a run of a few epochs."""

    def make(method="concat", seed=0, **recipe):
        changes = {"epochs": 4, "batch_size": 16, **recipe}
        return plan(Sweep([method], [blobs], [seed], recipe=changes)).runs[0]

    return make


@pytest.fixture
def done(spec_of, tmp_path):
    """A finished run: its spec and its folder."""
    spec = spec_of()
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    return spec, RunFolder(spec.folder(tmp_path))


def results(folder):
    return {name: (folder.path / name).read_bytes() for name in RESULTS}


# --- what a run leaves ---------------------------------------------------------------------------------------------


def test_every_score_of_the_record_can_be_computed_from_the_predictions(done):
    _, folder = done
    table = pq.read_table(folder.predictions).to_pandas()
    record = folder.plain_record()
    for rule, entry in record["rules"].items():
        rows = table[table["rule"] == rule]
        assert rows["id"].nunique() == len(rows) == record["num_samples"]["test"] == 50
        for head, scores in entry["test"].items():
            guess = np.stack(rows[head]).argmax(1)
            assert scores["accuracy"] == pytest.approx(np.mean(guess == rows["label"]))


def test_the_record_and_the_history_say_what_the_run_took(done):
    _, folder = done
    assert set(folder.plain_record()["memory"]) == {"process"}
    assert folder.plain_record()["load"] >= 0
    noted = folder.read_environment()
    assert (noted["jobs"], noted["cores"]) == (1, os.cpu_count())
    assert noted["load"] >= 0
    history = folder.read_history()
    assert [set(line["gradients"]) for line in history] == [{"audio", "video"}] * 4
    assert len({line["samples"] for line in history}) == 1


def test_each_rule_reports_the_model_of_the_epoch_that_it_names(done):
    _, folder = done
    history = folder.read_history()
    for entry in folder.plain_record()["rules"].values():
        for head, scores in history[entry["epoch"]]["test"].items():
            assert entry["test"][head]["accuracy"] == scores["accuracy"]
            assert entry["test"][head]["loss"] == pytest.approx(scores["loss"])


def test_embeddings_hold_every_test_sample_of_every_modality(done):
    _, folder = done
    with np.load(folder.embeddings, allow_pickle=False) as held:
        assert held["audio"].shape == held["video"].shape == (50, 8)
        assert len(set(held["ids"].tolist())) == len(held["labels"]) == 50


def test_embeddings_are_of_the_model_that_validation_chose(spec_of, tmp_path):
    spec = spec_of(seed=1, epochs=6, optimizer={"kind": "sgd", "lr": 0.4})
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    folder = RunFolder(spec.folder(tmp_path))
    rules = folder.plain_record()["rules"]
    assert rules["best_valid"]["epoch"] != rules["last"]["epoch"]
    model = load_model(folder.path)
    samples, held = model.dataset.load(), view(folder).embeddings()
    rows = np.array([list(samples.ids).index(name) for name in held.ids])
    for modality, features in model.encode(samples.take(rows)).items():
        np.testing.assert_allclose(held.features[modality], features.numpy(), atol=1e-5)


def test_a_record_has_every_metric_on_test_and_the_size_of_every_split(done):
    _, folder = done
    record = folder.plain_record()
    for entry in record["rules"].values():
        assert set(entry["test"]["fused"]) == set(METRICS)
    sizes = record["num_samples"]
    assert sizes == {"train": 85, "valid": 15, "test": 50}


def test_a_record_says_how_far_its_method_was_compared_and_that_no_gpu_was_used(done):
    spec, folder = done
    record, trust = view(folder).record, load_method(spec)[0].ledger
    assert record.gpu_seconds == 0.0
    assert record.ledger == {"code": trust.code, "paper": trust.paper}


def test_only_honest_rules_have_probes(done):
    _, folder = done
    rules = folder.plain_record()["rules"]
    assert {rule for rule, entry in rules.items() if "probe" in entry} == {"best_valid", "last"}


def test_a_finished_run_is_left_alone(done, tmp_path):
    spec, folder = done
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.name != ".lock"}
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*") if path.name != ".lock"} == before


# --- going on ------------------------------------------------------------------------------------------------------


def cut(name):
    def damage(folder):
        path = folder.path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def write(name, content):
    return lambda folder: (folder.path / name).write_bytes(content)


def remove(name):
    return lambda folder: (folder.path / name).unlink()


DAMAGE = {
    "nothing but the record lost": lambda folder: None,
    "predictions cut": cut("predictions.parquet"),
    "embeddings gone": remove("embeddings.npz"),
    "checkpoint cut": cut("checkpoint/last.pt"),
    "checkpoint empty": write("checkpoint/last.pt", b""),
    "checkpoint is something else": write("checkpoint/last.pt", b"not a checkpoint"),
    "checkpoint gone": remove("checkpoint/last.pt"),
    "best model cut": cut("checkpoint/best_valid.pt"),
    "best model gone": remove("checkpoint/best_valid.pt"),
    "oracle gone": remove("checkpoint/oracle_test.pt"),
    "history cut": cut("history.jsonl"),
    "history gone": remove("history.jsonl"),
    "history ahead of the checkpoint": lambda folder: folder.append_history({"epoch": 4}),
    "history torn": lambda folder: (folder.path / "history.jsonl").open("ab").write(b'{"epo'),
    "status cut": cut("status.json"),
    "spec cut": cut("spec.yaml"),
}


@pytest.mark.full
@pytest.mark.parametrize("case", DAMAGE)
def test_the_next_attempt_repairs_any_damage_to_the_same_bytes(done, tmp_path, case):
    spec, folder = done
    expected = results(folder)
    (folder.path / "record.json").unlink()
    folder.write_status(Status(State.INTERRUPTED, 1, 4, 4))
    DAMAGE[case](folder)
    assert execute(spec, Attempt(tmp_path)) is State.DONE, folder.read_status().cause
    assert results(folder) == expected
    assert view(folder).problem == ""


def test_a_run_in_other_hands_is_not_touched(spec_of, tmp_path):
    spec = spec_of()
    folder = RunFolder(spec.folder(tmp_path))
    with folder.lock(), pytest.raises(Timeout):
        execute(spec, Attempt(tmp_path))
    assert [path.name for path in folder.path.iterdir()] == [".lock"]


# --- failing -------------------------------------------------------------------------------------------------------

CRASH = """
    from benchmark.method import Method, Reference
    from benchmark.model import concat_net

    class Crash(Method):
        reference = Reference("test")

        def build_net(self, task):
            return concat_net(task)

        def end_epoch(self, epoch):
            raise RuntimeError("two\\nlines")
"""


def test_what_goes_wrong_inside_is_written_down_in_a_line_and_not_raised(spec_of, plugin, tmp_path):
    spec = spec_of(plugin("crash", CRASH))
    assert execute(spec, Attempt(tmp_path)) is State.FAILED
    status = RunFolder(spec.folder(tmp_path)).read_status()
    assert status.state is State.FAILED
    assert status.cause == "RuntimeError: two"


def test_numbers_of_other_versions_than_the_run_was_planned_with_are_refused(spec_of, tmp_path):
    spec = spec_of()

    def method(**change):
        return {"method": spec.method.model_copy(update=change)}

    for part, words in (
        ({"numerics": 99}, "NUMERICS: expected version 99 .* got version 1. Give the command again"),
        ({"numerics": 0}, "NUMERICS: expected the code .* before numbers had versions"),
        (method(version=99), "method concat: expected version 99 .* got version 1"),
        (method(code="other"), "method concat: expected the code .* got other code"),
    ):
        changed = spec.model_copy(update=part)
        with pytest.raises(UserError, match=words):
            load_method(changed)
        assert execute(changed, Attempt(tmp_path)) is State.FAILED
        assert "Give the command again" in RunFolder(changed.folder(tmp_path)).read_status().cause


def test_causes_are_one_line_and_say_what_to_do():
    assert "--batch-size" in describe(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    both = describe(UserError(Problem("a", "b", "c"), Problem("x", "y", "z")))
    assert "a: expected b, got c." in both
    assert "x: expected y, got z." in both


def test_a_device_that_is_not_there_is_an_error_in_the_words_of_cuda(spec_of, tmp_path):
    spec = spec_of()
    assert execute(spec, Attempt(tmp_path, device="cuda:99")) is State.FAILED
    status = RunFolder(spec.folder(tmp_path)).read_status()
    assert status.attempts == 1
    assert "CUDA" in status.cause or "NVIDIA" in status.cause
