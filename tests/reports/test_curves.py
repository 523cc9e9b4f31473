"""Training dynamics: lines are what the histories hold, holes stay holes, figures keep each method's look."""

from __future__ import annotations

import json

import numpy as np
import pytest
from benchmark.reports._figures import PALETTE, open_figure, style_at, styles
from benchmark.reports._histories import as_columns
from benchmark.reports.curves import CurvesReport, figures, read, series, signals

from benchmark.records import State

NAN = float("nan")


@pytest.fixture
def logged(made_up):
    """Write a run whose epochs have what is given beside their scores."""

    def write(method="concat", seed=0, train=({}, {}), gradients=({}, {}), **options):
        folder = made_up(method, seed, **options)
        lines = [
            line | {"train": t, "gradients": g}
            for line, t, g in zip(folder.read_history(), train, gradients, strict=True)
        ]
        (folder.path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return write


def drawn(comparison):
    return figures(comparison, read(comparison), styles([comparison]))


def lines_of(figure):
    return {
        panel.get_title(): {line.get_label(): np.asarray(line.get_xydata()).tolist() for line in panel.get_lines()}
        for panel in figure.get_axes()
    }


def test_lines_are_means_over_seeds_of_what_was_logged(logged, comparison_of, tmp_path):
    for seed in range(2):
        logged(seed=seed, accuracy=0.5 + 0.1 * seed,
               train=({"loss": 2.0, "loss/audio": 3.0 + seed}, {"loss": 1.0, "loss/audio": 2.0}),
               gradients=({"audio": 1.0, "video": 4.0}, {"audio": 2.0 + seed, "video": 4.0}))  # fmt: skip
    (comparison,) = comparison_of(tmp_path)
    found = {name: lines_of(figure) for name, figure in drawn(comparison).items()}
    assert found["curves"]["fused"]["concat"] == [[1, 55], [2, 55]]
    assert found["losses"]["the method's loss"]["concat"] == [[1, 2.0], [2, 1.0]]
    assert found["losses"]["audio, own logits"]["concat"] == [[1, 3.5], [2, 2.0]]
    assert found["losses"]["video, own logits"] == {}
    assert found["gradients"]["audio encoder"]["concat"] == [[1, 1.0], [2, 2.5]]
    assert found["gradients"]["video encoder"]["concat"] == [[1, 4.0], [2, 4.0]]


def test_a_value_that_is_missing_or_not_finite_in_a_run_leaves_its_epoch_out():
    def history(*values):
        return as_columns([{"epoch": e, "train": {} if v is None else {"x": v}} for e, v in enumerate(values)])

    epochs, values = series([history(1.0, None, 3.0, NAN, 5.0), history(2.0, 2.0, 4.0, 1.0)], "train/x")
    assert epochs.tolist() == [1, 3]
    assert values.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert series([history(None), history(NAN)], "train/x") is None
    assert series([history(1.0, None), history(None, 1.0)], "train/x") is None
    epochs, values = series([history(1.0), history(None)], "train/x")  # one without any hides no other
    assert values.tolist() == [[1.0]]


def test_columns_hold_every_number_of_a_history_and_nothing_else():
    line = {"epoch": 1, "lr": [0.1], "samples": 7, "valid": {"fused": {"accuracy": 0.5}}, "train": {"loss/audio": 2}}
    found = as_columns([line, {**line, "epoch": 2, "valid": {"fused": {"accuracy": 0.75}, "audio": {"loss": NAN}}}])
    assert found.epochs.tolist() == [2, 3]
    assert set(found.paths) == {"samples", "valid/fused/accuracy", "valid/audio/loss", "train/loss/audio"}
    assert found.column("valid/fused/accuracy").tolist() == [0.5, 0.75]
    assert np.isnan(found.column("valid/audio/loss")).all()
    assert np.isnan(found.column("nowhere")).tolist() == [True, True]
    assert {key: values.tolist() for key, values in found.under("train").items()} == {"loss/audio": [2, 2]}
    assert len(as_columns([])) == 0


def test_histories_without_losses_and_gradients_have_the_accuracy_alone(made_up, comparison_of, tmp_path):
    made_up()
    made_up("aug", state=State.RUNNING)
    (comparison,) = comparison_of(tmp_path)
    found = drawn(comparison)
    assert list(found) == ["curves"]
    assert set(lines_of(found["curves"])["fused"]) == {"concat", "aug"}


def test_each_method_has_a_figure_of_its_own_signals(logged, comparison_of, tmp_path):
    logged("aug", train=({"loss": 1.0, "classifiers/audio": 1, "classifiers/video": 1, "weight": 2.0},) * 2)
    logged("concat", train=({"loss": 1.0, "loss/audio": 1.0},) * 2)
    assert signals(read(*comparison_of(tmp_path))["aug"]) == {"classifiers": ["audio", "video"], "weight": [""]}
    names = {artifact.name for artifact in CurvesReport().build(comparison_of(tmp_path))}
    assert "signals-aug-blobs--unified--2-epochs.svg" in names
    assert not [name for name in names if name.startswith("signals-concat")]


@pytest.mark.full
def test_files_do_not_depend_on_the_order_of_runs(logged, comparison_of, tmp_path):
    for seed in range(2):
        logged("concat", seed, train=({"loss": 1.0 + seed},) * 2)
        logged("ogm", seed, train=({"k/audio": 0.5 + seed, "loss": 1.0},) * 2)
    first = {artifact.name: artifact.content for artifact in CurvesReport().build(comparison_of(tmp_path))}
    again = {artifact.name: artifact.content for artifact in CurvesReport().build(comparison_of(tmp_path, shuffle=1))}
    assert first == again


# --- the common look -----------------------------------------------------------------------------------------------


def test_twenty_eight_methods_look_different_and_keep_their_look_across_data_sets(made_up, comparison_of, tmp_path):
    assert len({style_at(place) for place in range(28)}) == 28
    assert len(set(PALETTE)) == 7
    for method in ("a", "b", "c"):
        made_up(method)
    made_up("c", dataset="other")
    comparisons = comparison_of(tmp_path)
    assert styles(comparisons) == styles(comparisons[::-1])
    assert [len(one.methods) for one in comparisons] == [3, 1]
    assert styles(comparisons)["c"] == style_at(2)


def test_a_legend_of_many_long_names_gets_room_below_the_panels():
    few, many = (open_figure(8, 3, "title", [f"{place}{'x' * 40}" for place in range(count)]) for count in (2, 25))
    assert many.get_figheight() > few.get_figheight()
    many.canvas.draw()
