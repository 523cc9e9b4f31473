"""`valid_share: 0`: all of train trains, and whatever would need validation says n/a and is replaced by nothing."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch

import benchmark as mb
from benchmark.check.synthetic import Blobs
from benchmark.cli.terminal import valid_score
from benchmark.data import hold_out
from benchmark.errors import UserError
from benchmark.metrics import FUSED
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import MissingScores, NoiseScores, RunFolder, State, view
from benchmark.registry import REPORTS
from benchmark.report import compare
from benchmark.robustness.evaluator import Evaluator
from benchmark.site.pages import build
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute
from benchmark.train.trainer import Trainer

CPU = torch.device("cpu")
WORDS = "all of train trains, so there are no samples to validate on"


def planned(blobs, method="concat", seed=0, **recipe):
    changes = {"epochs": 3, "batch_size": 16, **recipe}
    return plan(Sweep([method], [blobs], [seed], "aug2025", recipe=changes)).runs[0]


@pytest.fixture(scope="module")
def out(tmp_path_factory, blobs):
    """Finished runs under `aug2025`."""
    folder = tmp_path_factory.mktemp("whole")
    for method in ("concat", "late_sum"):
        spec = planned(blobs, method)
        assert execute(spec, Attempt(folder)) is State.DONE
    return folder


@pytest.fixture
def run(out, blobs):
    return view(RunFolder(planned(blobs).folder(out)))


def test_a_share_of_zero_holds_nothing_out_whatever_the_groups():
    index = np.array([5, 2, 9])
    for groups in (None, [*"aabbccddee"]):
        train, valid = hold_out(index, torch.arange(10), 0.0, groups)
        assert train.tolist() == [2, 5, 9]
        assert len(valid) == 0


def test_every_sample_of_train_trains_and_no_rule_looks_at_validation(run):
    data = Blobs(Blobs.Config())
    assert len(data.split(data.load(), 0.0).train) == 100
    assert (run.record.num_samples.train, run.record.num_samples.valid) == (100, 0)
    assert set(run.record.rules) == {"last", "oracle_test"}
    assert [line.line["samples"] for line in run.history()] == [100, 100, 100]
    assert not any("valid" in line.line for line in run.history())
    assert all(chosen.valid == {} for chosen in run.record.rules.values())


def test_the_rule_is_undefined_in_words_and_never_another(run):
    assert not run.record.is_defined("best_valid")
    assert run.score("best_valid") is None
    with pytest.raises(ValueError, match="best_valid"):
        run.predictions("best_valid")
    assert run.history()[0].measured("valid", FUSED, "accuracy") is None
    assert run.status.metric is None
    assert valid_score(run.status, "%") == "n/a"


def test_the_model_that_is_kept_is_the_last_epochs(run):
    assert run.record.kept.name == "last"
    assert run.probe("audio") == run.record.probe("last", "audio") is not None
    model, last = mb.load_model(run), run.predictions("last")
    data = model.dataset.load()
    place = {name: i for i, name in enumerate(data.ids)}
    rows = np.array([place[name] for name in last.ids])
    found = model.predict({m: x[torch.from_numpy(rows)] for m, x in data.inputs.items()})[FUSED]
    assert found.numpy() == pytest.approx(last.logits[FUSED], abs=1e-5)
    assert run.embeddings().ids == last.ids


def test_an_interrupted_run_ends_with_the_same_bits(out, run, blobs, tmp_path, monkeypatch):
    spec = planned(blobs)
    real = Trainer.run_epoch

    def stop_after_one(self):
        if self.epoch == 1:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(Trainer, "run_epoch", stop_after_one)
    assert execute(spec, Attempt(tmp_path)) is State.INTERRUPTED
    monkeypatch.undo()
    assert execute(spec, Attempt(tmp_path)) is State.DONE
    folder = RunFolder(spec.folder(tmp_path))
    assert folder.predictions.read_bytes() == run.folder.predictions.read_bytes()
    assert (folder.path / "history.jsonl").read_bytes() == (run.folder.path / "history.jsonl").read_bytes()


def test_tables_print_n_a_in_every_format_and_say_why(out):
    (comparison,) = compare(mb.load(out))[0]
    files = {one.name: one.content.decode() for one in REPORTS.find("comparison").load()().build([comparison])}
    (text,) = (text for name, text in files.items() if name.startswith("fused") and name.endswith(".csv"))
    states = {row["column"]: row["symbol"] for row in csv.DictReader(io.StringIO(text))}
    assert states["best valid"] == states["optimism"] == "n/a"
    for suffix in ("md", "tex"):
        (text,) = (text for name, text in files.items() if name.startswith("fused") and name.endswith(suffix))
        assert "n/a" in text
        assert WORDS in " ".join(text.split())
    (text,) = (text for name, text in files.items() if name.startswith("unimodal") and name.endswith("md"))
    assert "last epoch" in text


@pytest.mark.full
def test_what_is_evaluated_is_the_last_model_and_every_report_says_so(out):
    for run in mb.load(out):
        Evaluator(None, CPU).evaluate(run.folder)
        for kind in (MissingScores, NoiseScores):
            assert {row.accuracy for row in run.evaluation(kind).untouched()} == {run.score("last")}
    comparisons = compare(mb.load(out))[0]
    for name, plugin in REPORTS.known().items():
        for artifact in plugin.load()().build(comparisons):
            if artifact.name.endswith(".md"):
                assert "chosen on validation." not in artifact.content.decode(), name
                assert "best valid epoch" not in artifact.content.decode(), name


def test_pages_show_n_a(out):
    pages = {one.name: one.content.decode() for one in build(mb.load(out), out)}
    (sweep,) = (text for name, text in pages.items() if name.endswith("index.html"))
    assert sweep.count(">n/a<") >= 4  # the score and the curve of both runs
    page = next(text for name, text in pages.items() if "concat" in name and name.endswith(".html"))
    assert ">n/a<" in page
    assert WORDS in page


def test_frames_have_no_validation(out):
    runs = mb.load(out)
    assert set(runs.history()["split"]) == {"test"}
    assert set(runs.to_frame()["rule"]) == {"last", "oracle_test"}
    with pytest.raises(UserError, match="best_valid"):
        runs.predictions()


def test_choosing_by_validation_is_refused_before_anything_starts(blobs):
    with pytest.raises(UserError, match="a rule that needs no validation, last or oracle_test"):
        planned(blobs, selection="best_valid")
