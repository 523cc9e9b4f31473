"""What tools are told about a run, against the run's own files."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from PIL import Image

from benchmark.records import State, scan, view
from benchmark.track.content import MAX_CELLS, conclude, describe, scalars_of


@pytest.fixture
def run(finished):
    return next(scan(finished))


def test_numbers_of_an_epoch_are_named_by_their_path():
    line = {"epoch": 3, "lr": [0.1, 0.2], "valid": {"fused": {"loss": 1.5}}, "note": "text", "train": {"loss/x": 2}}
    expected = {"epoch": 3, "lr/0": 0.1, "lr/1": 0.2, "valid/fused/loss": 1.5, "train/loss/x": 2}
    assert scalars_of(line) == expected


def test_a_page_has_the_runs_own_id_and_the_comparison_as_group_unless_there_is_a_sweep(run):
    page = describe(run, "", "a/b")
    assert page.id == run.record.id
    assert (page.title, page.group) == (run.title, f"{run.dataset}, unified")
    assert describe(run, "my sweep", "a/b").group == "my sweep"
    assert page.config["recipe"] == run.spec["recipe"]
    assert "argv" not in page.config["environment"], "a command line may hold what is nobody's business"
    assert page.config["environment"]["host"]


def test_scores_have_a_row_for_each_rule_split_and_head(run):
    grid = conclude(run).tables["scores"]
    rows = {tuple(row[grid.columns.index(name)] for name in ("rule", "split", "head")): row for row in grid.rows}
    assert len(rows) == len(grid.rows)
    for rule, entry in run.record.plain()["rules"].items():
        for split in ("valid", "test"):
            for head, scores in entry[split].items():
                told = dict(zip(grid.columns, rows[rule, split, head], strict=True))
                assert {key: told[key] for key in scores} == scores
        for head, accuracy in entry.get("probe", {}).items():
            assert accuracy in rows[rule, "test", f"{head} (probe)"]


def test_confusions_count_the_stored_predictions_of_the_rule(run):
    predictions = pd.read_parquet(run.folder.predictions).query("rule == 'best_valid'")
    names = run.record.class_names
    for head in ("fused", *run.record.modalities):
        chosen = [names[max(range(len(row)), key=lambda k, row=row: row[k])] for row in predictions[head]]
        counts = Counter(zip((names[label] for label in predictions["label"]), chosen, strict=True))
        grid = conclude(run).tables[f"confusion/{head}"]
        assert {(label, predicted): count for label, predicted, count in grid.rows} == counts
    picture = Image.open(io.BytesIO(conclude(run).figures["confusion"]))
    assert picture.size[0] > 300


def test_damaged_predictions_lose_their_tables_only(finished, tmp_path, run):
    broken = replace(run, folder=type(run.folder)(tmp_path))
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no such thing")
    told = conclude(broken)
    assert set(told.tables) == {"scores"}
    assert not told.figures
    assert told.summary["best_valid/test/fused/accuracy"] == run.score("best_valid")


@pytest.mark.parametrize("state", [State.FAILED, State.INTERRUPTED, State.CANCELLED])
def test_a_run_that_is_not_done_tells_why(made_up, state):
    told = conclude(view(made_up(state=state, cause="out of memory")))
    assert (told.is_done, told.summary["state"], told.summary["cause"]) == (False, str(state), "out of memory")
    assert not told.tables


def test_tables_stay_within_what_tools_take(run):
    import numpy as np

    from benchmark.track import content

    many = replace(run.record, class_names=tuple(str(k) for k in range(200)))
    counts = np.arange(200 * 200).reshape(200, 200)
    grid = content._cells(replace(run, record=many), counts)
    assert len(grid.rows) == MAX_CELLS
    assert min(row[2] for row in grid.rows) == 200 * 200 - MAX_CELLS, "the most frequent are kept"
