"""The imbalance report: Shapley values, modality gap and gradient norms by other ways of computing them."""

from __future__ import annotations

import json
from io import BytesIO
from itertools import combinations
from math import factorial

import numpy as np
import pytest
from benchmark.reports.imbalance import (
    ImbalanceReport,
    contributions,
    draw,
    measure_all,
    modality_gap,
    shapley,
    signals,
)

from benchmark.records import MissingScores, State
from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED

NAMES = ("audio", "video")


def subsets(names):
    return [frozenset(group) for size in range(len(names) + 1) for group in combinations(names, size)]


@pytest.fixture
def finished(made_up):
    """Write a finished run with embeddings, gradient norms and worths of the subsets (none, audio, video, both)."""

    def write(method="concat", seed=0, worths=(0.1, 0.6, 0.3, 0.7), gradients=({"audio": 1.0, "video": 4.0},) * 2,
              heads=NAMES, own=(0.8, 0.5), widths=(3, 3), **options):  # fmt: skip
        folder = made_up(method, seed, **options)
        record = folder.plain_record()
        rule = record["rules"]["best_valid"]
        rule["test"] = {"fused": rule["test"]["fused"]} | {m: {"accuracy": v} for m, v in zip(heads, own, strict=False)}
        rule["probe"] = {m: 0.9 - 0.1 * NAMES.index(m) for m in heads}
        folder.write("record.json", record)
        lines = [line | {"gradients": g} for line, g in zip(folder.read_history(), gradients, strict=True)]
        (folder.path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        rows = [
            {"present": sorted(group), "fill": fill, "accuracy": worth if fill == "zero" else 0.0, "macro_f1": 0.0}
            for group, worth in zip(subsets(NAMES), worths, strict=True)
            for fill in ("zero", "mean")
        ]
        folder.write(
            MissingScores.FILE, {"schema": MissingScores.SCHEMA, "id": record["id"], "rows": [], "subsets": rows}
        )
        rng, stream = np.random.default_rng(seed), BytesIO()
        features = {m: rng.normal(size=(20, d)) for m, d in zip(NAMES, widths, strict=True) if m in heads}
        np.savez(stream, labels=np.zeros(20), ids=np.arange(20).astype(str), **features)
        folder.embeddings.write_bytes(stream.getvalue())
        return folder

    return write


def shown(table):
    names = [(column.group, column.name) for column in table.columns]
    return {
        method: dict(zip(names, [c.text(k.digits, "±") for c, k in zip(row, table.columns, strict=True)], strict=True))
        for method, row in table.rows
    }


# --- measures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_shapley_values_equal_those_by_weighted_coalitions_and_sum_to_the_whole(count):
    names = ["audio", "video", "text", "depth"][:count]
    rng = np.random.default_rng(count)
    worth = {group: float(rng.normal()) for group in subsets(names)}
    found = shapley(worth, names)
    for name in names:
        others = [group for group in subsets(names) if name not in group]
        weights = [factorial(len(g)) * factorial(count - len(g) - 1) / factorial(count) for g in others]
        by_weights = sum(w * (worth[g | {name}] - worth[g]) for w, g in zip(weights, others, strict=True))
        assert found[name] == pytest.approx(by_weights)
    assert sum(found.values()) == pytest.approx(worth[frozenset(names)] - worth[frozenset()])


def test_a_modality_that_changes_nothing_contributes_nothing_and_equal_ones_alike():
    worth = {group: 10.0 * len(group & {"audio", "video"}) for group in subsets(["audio", "video", "text"])}
    assert shapley(worth, ["audio", "video", "text"]) == {"audio": 10.0, "video": 10.0, "text": 0.0}


def test_the_modality_gap_is_the_distance_of_mean_directions():
    one, other = np.array([[2.0, 0.0], [0.0, 5.0]]), np.array([[0.0, -1.0], [0.0, -3.0]])
    assert modality_gap([one, other]) == pytest.approx(np.hypot(0.5, 1.5))  # centres (.5, .5) and (0, -1)
    assert modality_gap([one, one]) == 0
    assert modality_gap([one * 7, other * 0.1]) == modality_gap([one, other])
    third = np.array([[1.0, 0.0], [1.0, 0.0]])
    pairs = [modality_gap([one, other]), modality_gap([one, third]), modality_gap([other, third])]
    assert modality_gap([one, other, third]) == pytest.approx(sum(pairs) / 3)


def test_the_modality_gap_is_undefined_without_a_common_space_or_numbers():
    x = np.ones((4, 3))
    assert modality_gap([x, np.ones((4, 2))]) is None
    assert modality_gap([x]) is None
    assert modality_gap([x, np.full((4, 3), np.nan)]) is None
    assert modality_gap([x, np.zeros((4, 3))]) == pytest.approx(1.0)  # nothing is divided by zero


# --- tables --------------------------------------------------------------------------------------------------------


def test_the_tables_have_every_measure(finished, comparison_of, tmp_path):
    folder = finished(gradients=({"audio": 1.0, "video": 4.0}, {"audio": 3.0, "video": 6.0}))
    (comparison,) = comparison_of(tmp_path)
    found = measure_all(comparison)
    assert shown(contributions(comparison, found))["concat"] == {
        ("own (%)", "audio"): "80.0", ("own (%)", "video"): "50.0", ("own (%)", "gap"): "30.0",
        ("probe (%)", "audio"): "90.0", ("probe (%)", "video"): "80.0", ("probe (%)", "gap"): "10.0",
        ("Shapley value (points)", "audio"): "45.0", ("Shapley value (points)", "video"): "15.0",
    }  # fmt: skip
    with np.load(folder.embeddings) as stored:
        unit = [stored[m] / np.sqrt((stored[m] ** 2).sum(1))[:, None] for m in NAMES]
    distance = np.sqrt(((unit[0].sum(0) / 20 - unit[1].sum(0) / 20) ** 2).sum())
    assert shown(signals(comparison, found))["concat"] == {
        ("features", "distance"): f"{distance:.3f}", ("gradient norm", "audio"): "2.000",
        ("gradient norm", "video"): "5.000", ("gradient norm", "ratio"): "2.500",
    }  # fmt: skip


def test_a_method_of_one_modality_has_no_gap_distance_or_ratio(finished, comparison_of, tmp_path):
    finished("unimodal", heads=("audio",), gradients=({"audio": 2.0},) * 2, worths=(0.1, 0.6, 0.1, 0.6))
    (comparison,) = comparison_of(tmp_path)
    found = measure_all(comparison)
    row = shown(contributions(comparison, found))["unimodal"]
    assert row["own (%)", "gap"] == row["probe (%)", "gap"] == row["own (%)", "video"] == UNSUPPORTED
    assert (row["Shapley value (points)", "audio"], row["Shapley value (points)", "video"]) == ("50.0", "0.0")
    row = shown(signals(comparison, found))["unimodal"]
    assert row["features", "distance"] == row["gradient norm", "ratio"] == row["gradient norm", "video"] == UNSUPPORTED
    assert row["gradient norm", "audio"] == "2.000"


def test_a_method_that_leaves_a_modality_no_gradient_has_no_ratio(finished, comparison_of, tmp_path):
    finished("mla", gradients=({"video": 4.0}, {"video": 6.0}))
    finished("turns", gradients=({"audio": 2.0}, {"video": 6.0}))  # in epochs of their own: each has a mean
    (comparison,) = comparison_of(tmp_path)
    rows = shown(signals(comparison, measure_all(comparison)))
    assert rows["mla"]["gradient norm", "ratio"] == rows["mla"]["gradient norm", "audio"] == UNSUPPORTED
    assert rows["mla"]["gradient norm", "video"] == "5.000"
    assert rows["turns"]["gradient norm", "ratio"] == "3.000"


def test_what_was_not_recorded_not_evaluated_or_failed_is_told_apart(finished, made_up, comparison_of, tmp_path):
    finished("concat", widths=(3, 4))
    old = finished("old", gradients=({}, {}))
    (old.path / MissingScores.FILE).write_text("{")
    old.embeddings.unlink()
    made_up("aug", state=State.FAILED, cause="diverged")
    made_up("late", state=State.RUNNING)
    (comparison,) = comparison_of(tmp_path)
    found = measure_all(comparison)
    table, second = contributions(comparison, found), signals(comparison, found)
    rows, norms = shown(table), shown(second)
    assert norms["concat"]["features", "distance"] == UNSUPPORTED
    assert rows["old"]["Shapley value (points)", "audio"] == norms["old"]["gradient norm", "ratio"] == MISSING
    assert set(rows["aug"].values()) | set(norms["aug"].values()) == {FAILED}
    assert set(rows["late"].values()) | set(norms["late"].values()) == {MISSING}
    assert any("not evaluated: 1 runs (old)" in note for note in table.notes)
    assert any("✗ aug, seed 0: diverged." in note for note in second.notes)
    assert draw(comparison, found).get_axes()


def test_files_do_not_depend_on_the_order_of_runs(finished, comparison_of, tmp_path):
    for seed in range(2):
        for method in ("concat", "aug", "x" * 300):
            finished(method if len(method) < 100 else method[:80], seed)
    first = {artifact.name: artifact.content for artifact in ImbalanceReport().build(comparison_of(tmp_path))}
    again = {
        artifact.name: artifact.content for artifact in ImbalanceReport().build(comparison_of(tmp_path, shuffle=1))
    }
    assert first == again
    assert {"imbalance-blobs--unified--2-epochs.png", "imbalance-signals-blobs--unified--2-epochs.csv"} <= set(first)


def test_without_a_finished_run_there_is_no_figure(made_up, comparison_of, tmp_path):
    made_up("aug", state=State.FAILED, cause="diverged")
    names = [artifact.name for artifact in ImbalanceReport().build(comparison_of(tmp_path))]
    assert names
    assert not [name for name in names if name.endswith((".png", ".svg", ".pdf"))]
