"""Missing modalities: the same nested holes for everybody, fills from train alone, scores that belong to the record."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import typer
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from benchmark.check.synthetic import Blobs
from benchmark.cli.evaluate_command import evaluate
from benchmark.data import Samples
from benchmark.errors import UserError
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import (
    EVALUATIONS,
    MIXED,
    MissingScores,
    NoiseScores,
    RunFolder,
    State,
    is_evaluated,
    scan,
    view,
)
from benchmark.registry import METHODS
from benchmark.robustness.evaluator import Evaluator
from benchmark.robustness.missing_modalities import (
    FILLS,
    RATES,
    Fill,
    FilledFeed,
    fills_of,
    holes,
    lost,
    measure,
    moments_of,
    subsets_of,
)
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute
from benchmark.train.saving import load, save

CPU = torch.device("cpu")
NAMES = ["audio", "video", "text"]
FILES = [kind.FILE for kind in EVALUATIONS]


def rows_of(folder, fill="zero"):
    """Return {(modality, rate): accuracy} from a run's missing.json."""
    rows = json.loads((folder.path / MissingScores.FILE).read_text())["rows"]
    return {(row["modality"], row["rate"]): row["accuracy"] for row in rows if row["fill"] == fill}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, blobs):
    """Runs of a method that grows, one that does not, and one that sees a single modality. Read only."""
    out = tmp_path_factory.mktemp("trained")
    methods = ["concat", "aug[check_every=1,tau=0.0]", "unimodal[modality=video]"]
    sweep = Sweep(methods, [f"{blobs}[noise=1.5]"], [0], recipe={"epochs": 3, "batch_size": 16})
    for spec in plan(sweep).runs:
        assert execute(spec, Attempt(out)) is State.DONE
    return out


@pytest.fixture
def runs(trained, tmp_path):
    """Copies of the trained runs, by method, that a test may change."""
    shutil.copytree(trained, tmp_path / "runs")
    return {run.spec["method"]["name"]: run.folder for run in scan(tmp_path / "runs")}


# --- holes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 50, 449])
@pytest.mark.parametrize("modality", ["audio", MIXED])
def test_exactly_the_share_is_affected_and_higher_rates_keep_who_was(count, modality):
    before = torch.full((count,), -1)
    for rate in RATES:
        which = lost(count, rate, "blobs", modality, NAMES)
        assert int((which >= 0).sum()) == round(rate * count)
        assert torch.equal(which[before >= 0], before[before >= 0])
        before = which
    assert {0.0, 0.2, 0.5} <= set(RATES)
    assert bool((before >= 0).all())


def test_holes_depend_on_the_names_alone():
    torch.manual_seed(1)
    one = holes(200, 0.5, "blobs", "audio")
    torch.manual_seed(2)
    assert torch.equal(one, holes(200, 0.5, "blobs", "audio"))
    assert not torch.equal(one, holes(200, 0.5, "blobs", "video"))
    assert not torch.equal(one, holes(200, 0.5, "others", "audio"))


def test_mixed_takes_every_modality_alike_and_a_single_one_only_itself():
    counts = lost(3000, 1.0, "blobs", MIXED, NAMES).bincount(minlength=3)
    assert bool(((counts - 1000).abs() < 100).all())  # four standard deviations
    assert set(lost(3000, 0.5, "blobs", "video", NAMES).tolist()) == {-1, 1}


# --- fills ---------------------------------------------------------------------------------------------------------


class FarTest(Blobs):
    """Blobs whose test samples lie far away, so that any use of them shows."""

    def load(self) -> Samples:
        samples = super().load()
        return Samples(
            {m: torch.cat([x[:100], x[100:] + 1e3]) for m, x in samples.inputs.items()}, samples.labels, samples.ids
        )


def measured(method, feeds):
    return measure(method, feeds, moments_of(feeds.train), "blobs")


def fill_all(feeds, fill, modalities=("audio", "video")):
    """Return what stands in for each modality of every test sample, {modality: (N, ...)}."""
    filler = Fill(fill, "blobs", moments_of(feeds.train))
    return {m: filler.of(m, torch.arange(len(feeds.test))) for m in modalities}


def test_fills_have_the_values_of_the_training_split_alone(trainer):
    dataset = FarTest(Blobs.Config())
    feeds = trainer(dataset=dataset).feeds
    samples = dataset.load()
    train = dataset.split(samples, 0.15).train
    for modality in ("audio", "video"):
        x = samples.inputs[modality].numpy().astype(np.float64)[train]
        zero, mean, noise = (fill_all(feeds, fill)[modality].numpy() for fill in FILLS)
        assert zero.shape == mean.shape == noise.shape == (50, 6)
        assert not zero.any()
        np.testing.assert_allclose(mean, np.tile(x.mean(0), (50, 1)), rtol=1e-4, atol=1e-5)
        standard = (noise - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean(0))
        assert abs(standard.mean()) < 0.25  # 300 draws: four standard deviations
        assert 0.8 < standard.std() < 1.2


def test_moments_are_those_of_all_of_train_whatever_the_batches(trainer, whole):
    train = trainer(dataset=FarTest(Blobs.Config())).feeds.train
    x = whole(train)["audio"].double()
    for size in (1, 7, 1000):
        train.batch_size = size
        moments = moments_of(train)["audio"]
        assert torch.allclose(moments.mean.double(), x.mean(0), atol=1e-6)
        assert torch.allclose(moments.std.double(), x.std(0, correction=0), atol=1e-6)


def test_noise_is_the_same_for_every_method_and_batch_and_another_for_each_modality(trainer):
    torch.manual_seed(1)
    one = fill_all(trainer("concat", seed=0).feeds, "noise")
    torch.manual_seed(2)
    feeds = trainer("late_sum", seed=5).feeds
    other = fill_all(feeds, "noise")
    assert all(torch.equal(one[m], other[m]) for m in one)
    few = Fill("noise", "blobs", moments_of(feeds.train)).of("audio", torch.tensor([7, 3]))
    assert torch.equal(few, one["audio"][[7, 3]])
    standard = {m: (x - x.mean(0)) / x.std(0) for m, x in one.items()}
    assert not torch.allclose(standard["audio"], standard["video"], atol=0.1)


def test_whole_numbers_are_filled_with_zeros_only():
    tokens = torch.arange(12).view(3, 4)
    assert fills_of({"text": tokens, "audio": tokens.float()}) == ["zero"]
    assert fills_of({"audio": tokens.float()}) == ["zero", "mean", "noise"]


# --- measuring -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["concat", "aug"])
def test_scores_are_those_of_a_forward_pass_over_inputs_with_the_holes(trainer, whole, method):
    subject = trainer(method, dataset=Blobs(Blobs.Config(num_modalities=3, noise=1.5)))
    subject.run_epoch()
    feeds, model = subject.feeds, subject.method.eval()
    content = measured(model, feeds)
    rows = {(row.modality, row.fill, row.rate): row for row in content.rows}
    assert len(rows) == (3 + 1) * len(RATES) * len(FILLS)
    labels = feeds.test.labels.numpy()
    for (modality, fill, rate), row in rows.items():
        which = lost(50, rate, "blobs", modality, NAMES).numpy()
        inputs = {m: x.clone() for m, x in whole(feeds.test).items()}
        for position, (m, values) in enumerate(fill_all(feeds, fill, NAMES).items()):
            for sample in np.flatnonzero(which == position):
                inputs[m][sample] = values[sample]
        with torch.no_grad():
            guess = model.predict(inputs)["fused"].argmax(1).numpy()
        assert row.accuracy == (guess == labels).mean()
        expected = f1_score(labels, guess, labels=[0, 1, 2], average="macro", zero_division=0)
        assert row.macro_f1 == pytest.approx(expected)
    assert len(content.subsets) == 8 * len(FILLS)
    for row in content.subsets:
        stand_ins = fill_all(feeds, row.fill, NAMES)
        inputs = {m: x if m in row.present else stand_ins[m] for m, x in whole(feeds.test).items()}
        with torch.no_grad():
            guess = model.predict(inputs)["fused"].argmax(1).numpy()
        assert row.accuracy == (guess == labels).mean()


def test_subsets_go_from_none_to_all_and_name_each_group_once():
    groups = subsets_of(NAMES)
    assert (groups[0], groups[-1]) == ((), tuple(NAMES))
    assert len(groups) == len(set(groups)) == 8
    assert subsets_of(["audio"]) == [(), ("audio",)]


def test_measuring_changes_neither_the_inputs_nor_the_method(trainer, whole):
    subject = trainer("concat")
    subject.run_epoch()
    inputs = {m: x.clone() for m, x in whole(subject.feeds.test).items()}
    weights = {name: x.clone() for name, x in subject.method.state_dict().items() if isinstance(x, torch.Tensor)}
    first = measured(subject.method, subject.feeds)
    assert measured(subject.method, subject.feeds) == first
    assert all(torch.equal(x, inputs[m]) for m, x in whole(subject.feeds.test).items())
    assert all(torch.equal(x, subject.method.state_dict()[name]) for name, x in weights.items())


def test_a_method_that_looks_at_the_whole_batch_is_refused(trainer):
    class Centred(METHODS.find("concat").load()):
        def predict(self, inputs):
            return super().predict({m: x - x.mean(0) for m, x in inputs.items()})

    subject = trainer(Centred)
    with pytest.raises(UserError, match=r"predict of Centred: expected .* that sample alone"):
        measured(subject.method, subject.feeds)


def test_a_filled_feed_serves_the_batches_of_the_split_with_holes_where_they_belong(trainer, whole):
    feeds = trainer().feeds
    feeds.test.batch_size = 20
    lack = {"audio": torch.arange(50) % 3 == 1, "video": torch.arange(50) % 2 == 0}
    filled = FilledFeed(feeds.test, Fill("mean", "blobs", moments_of(feeds.train)), lack)
    assert [len(inputs["audio"]) for inputs in filled.in_order()] == [20, 20, 10]
    for modality, x in whole(filled).items():
        changed = (x != whole(feeds.test)[modality]).any(1)
        assert torch.equal(changed, lack[modality])


# --- finished runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["concat", "aug", "unimodal"])
def test_nothing_missing_scores_what_the_record_says(runs, method):
    folder = runs[method]
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name not in FILES}
    Evaluator(None, CPU).evaluate(folder)
    run = view(folder)
    missing, noisy = run.evaluation(MissingScores), run.evaluation(NoiseScores)
    assert len(missing.untouched()) == 3 * len(FILLS)
    assert len(noisy.untouched()) == 3
    whole = [row for row in missing.subsets if len(row.present) == 2]
    assert len(whole) == len(FILLS)
    found = {(row.accuracy, row.macro_f1) for row in (*missing.untouched(), *whole, *noisy.untouched())}
    assert found == {(run.score("best_valid"), run.score("best_valid", metric="macro_f1"))}
    assert {path: path.read_bytes() for path in before} == before


def test_a_method_does_not_miss_what_it_never_reads(runs):
    Evaluator(None, CPU).evaluate(runs["unimodal"])
    for fill in FILLS:
        rows = rows_of(runs["unimodal"], fill)
        assert len({rows["audio", rate] for rate in RATES}) == 1
    assert rows_of(runs["unimodal"])["video", 1.0] != rows_of(runs["unimodal"])["video", 0.0]


def test_one_evaluator_for_several_runs_finds_what_one_for_each_does(runs):
    def written(folder):
        return [(folder.path / name).read_bytes() for name in FILES]

    shared = Evaluator(None, CPU)
    for folder in runs.values():
        shared.evaluate(folder)
        together = written(folder)
        Evaluator(None, CPU).evaluate(folder)
        assert written(folder) == together


@pytest.mark.parametrize("damage", ["cut", "gone", "text", "other weights", "no weights"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(runs, damage):
    folder = runs["concat"]
    path = folder.checkpoints / "best_valid.pt"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "gone":
        path.unlink()
    elif damage == "text":
        path.write_text("weights")
    elif damage == "other weights":
        shutil.copy(runs["aug"].checkpoints / "best_valid.pt", path)
    else:
        save(path, {"test": {}})
    with pytest.raises(UserError, match=r"best_valid\.pt: expected the weights .* Train again: bench run --force"):
        Evaluator(None, CPU).evaluate(folder)
    assert not (folder.path / MissingScores.FILE).exists()


def test_a_checkpoint_of_another_training_is_refused(runs):
    path = runs["concat"].checkpoints / "best_valid.pt"
    state = load(path)
    state["method"] = {name: torch.zeros_like(x) if x.is_floating_point() else x for name, x in state["method"].items()}
    save(path, state)
    with pytest.raises(UserError, match="expected the record's test accuracy"):
        Evaluator(None, CPU).evaluate(runs["concat"])
    assert not (runs["concat"].path / MissingScores.FILE).exists()


def test_other_data_than_the_run_was_trained_on_is_refused(runs):
    path = runs["concat"].path / "spec.yaml"
    path.write_text(path.read_text().replace("fingerprint: synthetic", "fingerprint: elsewhere"))
    with pytest.raises(UserError, match="expected the data of the plan, elsewhere, got synthetic"):
        Evaluator(None, CPU).evaluate(runs["concat"])


@pytest.mark.parametrize("kind", EVALUATIONS)
@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"schema": 0, "id": "x"}', '{"schema": SCHEMA, "id": "another"}', '{"schema": LATER, "id": "x"}'],
)
def test_a_damaged_or_foreign_file_does_not_count_as_evaluated(tmp_path, content, kind):
    folder = RunFolder(tmp_path)
    assert not is_evaluated(folder, "x")
    for each in EVALUATIONS:
        each(**{part: [] for part in each.PARTS}).write(folder, "x")
    assert is_evaluated(folder, "x")
    content = content.replace("SCHEMA", str(kind.SCHEMA)).replace("LATER", str(kind.SCHEMA + 1))
    (tmp_path / kind.FILE).write_text(content)
    assert not is_evaluated(folder, "x")


# --- the command ---------------------------------------------------------------------------------------------------


def bench_evaluate(*arguments):
    app = typer.Typer()
    app.command()(evaluate)
    return CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"])


@pytest.mark.full
def test_the_command_evaluates_what_is_not_evaluated_yet(runs, tmp_path):
    out = tmp_path / "runs"
    first = bench_evaluate("--out", out)
    assert first.exit_code == 0, first.output
    assert first.output.count("evaluated: synthetic") == 3
    written = {folder: (folder.path / MissingScores.FILE).read_bytes() for folder in runs.values()}
    times = {folder: (folder.path / MissingScores.FILE).stat().st_mtime_ns for folder in runs.values()}
    again = bench_evaluate("--out", out)
    assert again.exit_code == 0
    assert again.output.count("already there") == 3
    assert {folder: (folder.path / MissingScores.FILE).stat().st_mtime_ns for folder in runs.values()} == times
    forced = bench_evaluate("--out", out, "--force", "--json")
    assert {row["state"] for row in json.loads(forced.stdout)} == {"evaluated"}
    assert {folder: (folder.path / MissingScores.FILE).stat().st_mtime_ns for folder in runs.values()} != times
    assert {folder: (folder.path / MissingScores.FILE).read_bytes() for folder in runs.values()} == written


def test_one_run_that_cannot_be_evaluated_does_not_stop_the_others(runs, tmp_path, made_up):
    (runs["aug"].checkpoints / "best_valid.pt").write_bytes(b"")
    made_up(state=State.RUNNING)
    done = bench_evaluate("--out", tmp_path / "runs", "--json")
    assert done.exit_code == 3
    states = {row["run"].split()[1].partition("[")[0]: row for row in json.loads(done.stdout)}
    assert states["unimodal"]["state"] == "evaluated"
    assert states["aug"]["state"] == "failed"
    assert "best_valid.pt" in states["aug"]["cause"]
    left = [row for row in json.loads(done.stdout) if row["run"] == "blobs concat s0"]
    assert [(row["state"], row["cause"]) for row in left] == [("left out", "the run is interrupted")]


def test_without_finished_runs_there_is_nothing_to_evaluate(tmp_path, made_up):
    none = bench_evaluate("--out", tmp_path / "nowhere")
    assert isinstance(none.exception, UserError)
    made_up(state=State.FAILED, cause="cause")
    failed = bench_evaluate("--out", tmp_path / "runs")
    assert isinstance(failed.exception, UserError)
    assert "finished runs, got 1 unfinished runs" in str(failed.exception)


def test_a_run_whose_record_is_damaged_is_reported(runs, tmp_path):
    (runs["concat"].path / "record.json").write_text("{")
    assert view(runs["concat"]).problem
    done = bench_evaluate("--out", tmp_path / "runs")
    assert done.exit_code == 3
    assert "failed: synthetic[noise=1.5] concat s0, record.json: truncated" in done.output
