"""Scores come from the features and not from the map, on the same samples for all, and the bytes are stable."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from benchmark.reports import tsne
from benchmark.reports.tsne import TSNEReport, draw, embed, first_seeds, knn, looks, read, separation, silhouette

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING

LABELS = np.repeat([0, 1], 20)
IDS = [f"clip{number:03d}" for number in range(len(LABELS))]


def clusters(distance, seed=0, dims=6):
    """Features (40, 6) of two classes this far apart."""
    noise = np.random.default_rng(seed).normal(size=(len(LABELS), dims))
    return (noise + distance * LABELS[:, None]).astype(np.float32)


@pytest.fixture
def runs(made_up):
    """Write a made-up run with embeddings {modality: (N, D)}."""

    def write(method, seed=0, features=None, ids=IDS, labels=LABELS, **options):
        folder = made_up(method, seed, **options)
        buffer = io.BytesIO()
        np.savez(buffer, labels=labels, ids=np.array(ids), **(features or {}))
        folder.embeddings.write_bytes(buffer.getvalue())
        return folder

    return write


def both(distance, seed=0):
    return {"audio": clusters(distance, seed), "video": clusters(0, seed + 9)}


def test_separated_classes_score_higher_than_shuffled_ones():
    features = clusters(4.0).astype(float)
    shuffled = np.random.default_rng(1).permutation(LABELS)
    assert silhouette(features, LABELS) > 0.4 > 0.1 > abs(silhouette(features, shuffled))
    assert knn(features, LABELS) == 100.0
    assert knn(features, shuffled) < 80


def test_the_silhouette_is_that_of_its_definition():
    features, labels = np.array([[0.0], [1.0], [5.0], [7.0]]), np.array([0, 0, 1, 1])
    # (b - a) / max(a, b) with a to the other of the class and b the mean to the other class
    expected = np.mean([(6 - 1) / 6, (5 - 1) / 5, (4.5 - 2) / 4.5, (6.5 - 2) / 6.5])
    assert silhouette(features, labels) == pytest.approx(expected)


def test_scores_that_are_not_defined_are_none():
    features = clusters(1.0).astype(float)
    assert silhouette(features, np.zeros(40, dtype=int)) is None
    assert silhouette(features, np.arange(40)) is None
    assert knn(features, np.zeros(40, dtype=int)) is None
    assert knn(features[:4], LABELS[:4]) is None


def test_features_are_standardised_so_that_one_loud_dimension_does_not_decide(runs, tmp_path, comparison_of):
    loud = clusters(4.0)
    loud[:, 0] = 1000 * np.random.default_rng(3).normal(size=len(loud))
    runs("loud", features={"audio": loud})
    features, _ = read(*comparison_of(tmp_path))
    found = features["loud", 0].of["audio"]
    assert found.mean(0) == pytest.approx(np.zeros(6), abs=1e-6)
    assert found.std(0) == pytest.approx(np.ones(6), abs=1e-6)
    assert knn(found, LABELS) > 95 > 80 > knn(loud.astype(float), LABELS)


def test_all_runs_are_scored_on_the_ids_that_they_share_whatever_their_order(runs, tmp_path, comparison_of):
    runs("whole", features=both(3.0))
    kept = np.random.default_rng(0).permutation(40)[:30]
    part = {m: values[kept] for m, values in both(3.0).items()}
    runs("part", features=part, ids=[IDS[at] for at in kept], labels=LABELS[kept])
    features, notes = read(*comparison_of(tmp_path))
    whole, other = features["whole", 0], features["part", 0]
    assert len(whole.labels) == 30
    assert (whole.labels == other.labels).all()
    assert whole.of["audio"] == pytest.approx(other.of["audio"])  # the same features, row by row
    assert "30 test samples" in notes[0]


def test_at_most_so_many_samples_spread_over_the_ids(runs, tmp_path, monkeypatch, comparison_of):
    monkeypatch.setattr(tsne, "SAMPLES", 10)
    runs("a", features=both(3.0))
    features, _ = read(*comparison_of(tmp_path))
    assert np.bincount(features["a", 0].labels).tolist() == [5, 5]  # the first ten ids are all of one class


def test_the_table_has_the_scores_of_every_seed(runs, tmp_path, comparison_of):
    for seed in range(3):
        runs("m", seed, both(4.0, seed))
    table = separation(*comparison_of(tmp_path), *read(*comparison_of(tmp_path)))
    scores = dict(zip([f"{c.group} {c.name}" for c in table.columns], dict(table.rows)["m"], strict=True))
    assert len(scores["audio silhouette"].values) == 3
    assert scores["audio silhouette"].mean > 0.4 > scores["video silhouette"].mean
    assert scores["audio kNN (%)"].mean > 95 > 80 > scores["video kNN (%)"].mean


def test_missing_failed_damaged_and_single_modality_runs(runs, made_up, tmp_path, comparison_of):
    runs("good", features=both(3.0))
    runs("alone", features={"audio": clusters(3.0)})
    made_up("bare")  # no embeddings at all
    made_up("damaged").embeddings.write_bytes(b"PK torn")
    runs("nan", features={"audio": np.full((40, 6), np.nan, dtype=np.float32)})
    made_up("failed", state=State.FAILED, cause="out of memory")
    table = separation(*comparison_of(tmp_path), *read(*comparison_of(tmp_path)))
    rows = dict(table.rows)
    assert all(cell.values for cell in rows["good"])
    assert [bool(cell.values) for cell in rows["alone"]] == [True, True, False, False]
    for method, symbol in {"bare": MISSING, "damaged": MISSING, "nan": MISSING, "failed": FAILED}.items():
        assert {(cell.values, cell.symbol) for cell in rows[method]} == {((), symbol)}
        assert any(method in note for note in table.notes)
    figure = draw(*comparison_of(tmp_path), read(*comparison_of(tmp_path))[0])
    assert len(figure.axes) == 2 * 2  # the two methods with features, by two modalities


def test_no_features_give_a_table_and_no_figure(made_up, tmp_path, comparison_of):
    made_up("failed", state=State.FAILED, cause="out of memory")
    names = [artifact.name for artifact in TSNEReport().build(comparison_of(tmp_path))]
    assert sorted(name.rsplit(".")[-1] for name in names) == ["csv", "md", "tex"]


def test_captions_are_the_scores_of_the_features_and_not_of_the_map(runs, tmp_path, monkeypatch, comparison_of):
    runs("m", features=both(4.0))
    monkeypatch.setattr(tsne, "embed", lambda features: np.zeros((len(features), 2)))
    features, _ = read(*comparison_of(tmp_path))
    panels = draw(*comparison_of(tmp_path), features).axes
    expected = silhouette(features["m", 0].of["audio"], LABELS)
    assert panels[0].get_xlabel().startswith(f"silhouette {expected:.3f}, kNN ")
    assert [panel.get_title() for panel in panels] == ["audio", "video"]


def test_a_row_is_the_first_finished_seed(runs, tmp_path, comparison_of):
    runs("m", 0, state=State.FAILED)
    runs("m", 1, both(1.0))
    runs("m", 2, both(1.0))
    (comparison,) = comparison_of(tmp_path)
    assert first_seeds(comparison, read(comparison)[0]) == {"m": 1}


def test_more_methods_than_rows_are_left_out_and_said_to_be(runs, tmp_path, monkeypatch, comparison_of):
    monkeypatch.setattr(tsne, "METHODS", 2)
    monkeypatch.setattr(tsne, "embed", lambda features: features[:, :2])
    for method in ("a", "b", "c"):
        runs(method, features=both(1.0))
    (comparison,) = comparison_of(tmp_path)
    features, notes = read(comparison)
    labels = [panel.get_ylabel() for panel in draw(comparison, features).axes if panel.get_ylabel()]
    assert labels == ["a, seed 0", "b, seed 0"]
    table = separation(comparison, features, notes)
    assert "The figure shows the first 2 of 3 methods." in table.notes
    assert len(table.rows) == 3


def test_features_without_spread_have_no_map():
    assert embed(np.zeros((40, 6))) is None
    assert embed(np.ones((3, 6))) is None
    assert embed(clusters(1.0).astype(float)).shape == (40, 2)


@pytest.mark.parametrize("count", [2, 10, 26, 40])
def test_every_class_of_a_legend_looks_different(count):
    assert len(set(looks(count))) == count


def test_more_classes_than_a_legend_holds_can_be_drawn(runs, tmp_path, comparison_of):
    folder = runs("m", features=both(1.0), labels=np.arange(40) + 100)
    record = json.loads((folder.path / "record.json").read_text())
    folder.write("record.json", {**record, "class_names": [str(k) for k in range(300)]})
    (comparison,) = comparison_of(tmp_path)
    assert not draw(comparison, read(comparison)[0]).legends


@pytest.mark.full
def test_the_order_of_records_changes_no_byte(runs, tmp_path, comparison_of):
    for method in ("a", "b"):
        for seed in range(2):
            runs(method, seed, both(2.0, seed))
    built = [list(TSNEReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2)]
    assert [artifact.name for artifact in built[0]] == [artifact.name for artifact in built[1]]
    assert built[0] == built[1]
    assert {artifact.name.rsplit(".")[-1] for artifact in built[0]} == {"tex", "md", "csv", "png", "svg", "pdf"}
