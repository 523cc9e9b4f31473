"""Runs as tables and reports: every number is that of the files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import benchmark as mb
from benchmark.errors import UserError


@pytest.fixture(scope="module")
def runs(finished):
    return mb.load(finished)


def test_a_frame_holds_every_score_of_every_record_once(runs):
    frame = runs.to_frame()
    assert set(frame.method) == {"concat", "late_sum"}
    assert set(frame.seed) == {0, 1}
    assert not frame.duplicated(["method", "seed", "rule", "head", "metric"]).any()
    for run in runs:
        record = json.loads((run.folder.path / "record.json").read_text())
        mine = frame[(frame.method == run.method) & (frame.seed == run.seed)]
        expected = {
            (rule, head, metric): value
            for rule, chosen in record["rules"].items()
            for head, scores in chosen["test"].items()
            for metric, value in scores.items()
        }
        probes = {
            (rule, head, "probe"): value
            for rule, chosen in record["rules"].items()
            for head, value in chosen.get("probe", {}).items()
        }
        found = mine.set_index(["rule", "head", "metric"]).value.to_dict()
        assert found == expected | probes


def test_predictions_score_what_the_record_says(runs):
    answers = runs.predictions("last")
    scores = (
        runs.to_frame().query("rule == 'last' and metric == 'accuracy'").set_index(["method", "seed", "head"]).value
    )
    assert np.allclose(answers.logits.map(np.argmax), answers.predicted)
    assert answers.confidence.between(0, 1).all()
    right = answers.assign(correct=answers.label == answers.predicted)
    found = right.groupby(["method", "seed", "head"]).correct.mean()
    pd.testing.assert_series_equal(found.sort_index(), scores.sort_index(), check_names=False)


def test_the_history_has_each_epoch_of_each_run(runs):
    history = runs.history().query("split == 'valid' and metric == 'accuracy' and head == 'fused'")
    assert history.groupby(["method", "seed"]).epoch.apply(list).map(lambda epochs: epochs == [0, 1, 2]).all()


def test_filters_narrow_and_wrong_names_are_all_told_with_the_nearest(runs):
    assert {run.method for run in runs.filter(method="late*")} == {"late_sum"}
    assert [run.seed for run in runs.filter(method="concat", seed=[1])] == [1]
    assert len(runs.filter(where=lambda run: run.seed == 0)) == 2
    assert len(runs.filter(state="done")) == 4
    with pytest.raises(UserError) as caught:
        runs.filter(method="concta", dataset="nothing", state="finished")
    assert len(caught.value.problems) == 3
    assert "concat" in str(caught.value.problems[0])


def test_unfinished_runs_are_shown_and_counted_out(made_up, tmp_path):
    made_up("concat", 0)
    made_up("concat<b>", 1, state=mb_state("failed"), cause="<script>")
    runs = mb.load(tmp_path / "runs")
    assert list(runs.overview().state) == ["failed", "done"] or list(runs.overview().state) == ["done", "failed"]
    assert set(runs.to_frame().seed) == {0}
    assert "<script>" not in runs._repr_html_()
    assert "concat<b>" not in runs._repr_html_()


def mb_state(name):
    from benchmark.records import State

    return State(name)


def test_a_report_shows_tables_and_pictures_and_can_be_written(runs, tmp_path):
    report = runs.report()
    assert report.name == "comparison"
    assert "<caption>" in report._repr_html_()
    assert "concat" in repr(report)
    assert {path.suffix for path in report.write(tmp_path)} >= {".tex", ".md", ".csv"}
    assert "data:image/png" in runs.report("curves")._repr_html_()
    with pytest.raises(UserError, match="comparison"):
        runs.report("comparsion")


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="runs"):
        mb.load(tmp_path / "nothing")
