"""Equal budgets: worked out by hand for made-up histories."""

from __future__ import annotations

import json

import pytest
from benchmark.reports.budget import BudgetReport, equal_budget
from benchmark.reports.capacity import capacity

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def trained(made_up):
    """Write a finished run with a history: valid and test accuracy by epoch, seconds in all, samples of an epoch."""

    def write(method, valid, test, seconds, samples=100, seed=0, encodes=("audio", "video"), losses=None):
        folder = made_up(method, seed)
        lines = [
            {
                "epoch": epoch, "samples": samples,
                "valid": {"fused": {"accuracy": v, "loss": losses[epoch] if losses else 1.0}},
                "test": {"fused": {"accuracy": t, "loss": 1.0}},
            }
            for epoch, (v, t) in enumerate(zip(valid, test, strict=True))
        ]  # fmt: skip
        (folder.path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = folder.plain_record()
        record["seconds"]["train"] = seconds
        record["num_samples"]["train"] = 100
        record["rules"]["best_valid"]["probe"] = dict.fromkeys(encodes, 0.5)
        folder.write("record.json", record)
        return folder

    return write


STEM = "blobs--unified--2-epochs"


def shown(table):
    names = [f"{column.group}: {column.name}" for column in table.columns]
    return {
        method: dict(zip(names, [c.text(k.digits, "±") for c, k in zip(row, table.columns, strict=True)], strict=True))
        for method, row in table.rows
    }


def test_each_method_is_taken_where_the_cheapest_ended(trained, comparison_of, tmp_path):
    trained("concat", [0.5, 0.6, 0.7, 0.8], [0.40, 0.50, 0.60, 0.70], seconds=8.0)
    # three times as slow, twice as many samples: 8 s pay for one epoch, 4 passes for two
    trained("gblend", [0.6, 0.9, 0.7, 0.8], [0.55, 0.80, 0.65, 0.75], seconds=24.0, samples=200)
    found = shown(equal_budget(*comparison_of(tmp_path)))
    assert found["concat"] == {
        "whole run: training (s)": "8.0", "whole run: passes": "4.0", "whole run: fused": "70.0",
        "equal seconds: epochs": "4.0", "equal seconds: fused": "70.0",
        "equal samples: epochs": "4.0", "equal samples: fused": "70.0",
    }  # fmt: skip
    assert found["gblend"] == {
        "whole run: training (s)": "24.0", "whole run: passes": "8.0", "whole run: fused": "80.0",
        "equal seconds: epochs": "1.0", "equal seconds: fused": "55.0",
        "equal samples: epochs": "2.0", "equal samples: fused": "80.0",
    }  # fmt: skip


def test_ties_go_to_the_lower_loss_and_then_to_the_first(trained, comparison_of, tmp_path):
    trained("concat", [0.5, 0.5, 0.5], [0.1, 0.2, 0.3], 3.0, losses=[2.0, 1.0, 1.0])
    assert shown(equal_budget(*comparison_of(tmp_path)))["concat"]["equal seconds: fused"] == "20.0"


def test_a_method_that_reads_one_modality_sets_no_budget(trained, comparison_of, tmp_path):
    trained("concat", [0.5] * 4, [0.5] * 4, seconds=8.0)
    trained("unimodal", [0.4] * 4, [0.4] * 4, seconds=2.0, encodes=("audio",))
    table = equal_budget(*comparison_of(tmp_path))
    assert shown(table)["concat"]["equal seconds: epochs"] == "4.0"
    assert any("8.0 s of training and 4.0 passes" in note for note in table.notes)


def test_the_budget_is_the_mean_over_seeds(trained, comparison_of, tmp_path):
    trained("concat", [0.5, 0.6], [0.5, 0.6], seconds=2.0, seed=0)
    trained("concat", [0.5, 0.6], [0.5, 0.6], seconds=4.0, seed=1)
    found = shown(equal_budget(*comparison_of(tmp_path)))["concat"]
    assert found["equal seconds: epochs"] == "1.5±0.7"  # 3 s pay for both epochs of one and one of the other


def test_what_did_not_finish_or_was_not_recorded_has_a_symbol(trained, made_up, comparison_of, tmp_path):
    trained("concat", [0.5, 0.6], [0.5, 0.6], seconds=2.0)
    trained("slow", [0.5, 0.6], [0.5, 0.6], seconds=9.0, samples=900)  # no epoch within 2 passes
    made_up("old")  # a history without samples
    made_up("aug", state=State.FAILED, cause="diverged")
    found = shown(equal_budget(*comparison_of(tmp_path)))
    assert found["slow"]["equal samples: fused"] == MISSING
    assert found["slow"]["equal samples: epochs"] == "0.0"
    assert set(found["old"].values()) == {MISSING}
    assert set(found["aug"].values()) == {FAILED}


def test_nothing_finished_is_a_table_of_symbols(made_up, comparison_of, tmp_path):
    made_up("aug", state=State.RUNNING)
    assert set(shown(equal_budget(*comparison_of(tmp_path)))["aug"].values()) == {MISSING}


def test_files_do_not_depend_on_the_order_of_runs(trained, comparison_of, tmp_path):
    for seed in range(3):
        for place, method in enumerate(("concat", "aug", "ogm")):
            trained(method, [0.5, 0.6], [0.5, 0.6 + 0.01 * seed], seconds=2.0 + place + 0.1 * seed, seed=seed)
    first = list(BudgetReport().build(comparison_of(tmp_path)))
    assert first == list(BudgetReport().build(comparison_of(tmp_path, shuffle=1)))
    assert [artifact.name for artifact in first] == [
        f"budget-blobs--unified--2-epochs.{end}" for end in ("tex", "md", "csv")
    ]


@pytest.mark.parametrize(("ends", "told"), [((10.0, 20.0), False), ((10.0, 10.5), True)])
def test_runs_that_shared_their_machine_are_told_before_their_seconds_are_read(
    made_up, comparison_of, tmp_path, ends, told
):
    for seed, end in enumerate(ends):  # each took 2 seconds
        folder = made_up("concat", seed, updated=end)
        (folder.path / "env.json").write_text(json.dumps({"host": "here"}))
    (comparison,) = comparison_of(tmp_path)
    notes = equal_budget(comparison).notes
    assert any("2 of 2 runs shared their machine" in note for note in notes) is told
    assert notes[0].startswith("Warning") is told


@pytest.mark.parametrize(
    ("noted", "load", "warnings"),
    [
        ({"jobs": 1, "threads": 2, "cores": 2}, 2.4, []),
        ({"jobs": 1, "threads": 2, "cores": 2}, 5.5, ["1 of 1 runs ended on a machine busy", "load 5.5 on 2 cores"]),
        ({"jobs": 4, "threads": 1, "cores": 4}, 4.5, ["1 of 1 runs shared their machine with other runs"]),
        ({"jobs": 1, "threads": 4, "cores": 64}, 15.0, []),  # most of it is free
        ({"jobs": 1, "threads": 4, "cores": 64}, 40.0, ["load 40.0 on 64 cores"]),
        ({"jobs": "many", "threads": None}, 9.0, []),
        ({"jobs": 1, "threads": 2, "cores": 2}, None, []),  # by a version that noted no load
    ],
)
def test_what_else_the_machine_did_is_told_before_seconds_are_read(
    made_up, comparison_of, tmp_path, noted, load, warnings
):
    folder = made_up("concat")
    (folder.path / "env.json").write_text(json.dumps({"host": "here", **noted}))
    folder.write("record.json", folder.plain_record() | {"load": load})
    (comparison,) = comparison_of(tmp_path)
    for notes in (equal_budget(comparison).notes, capacity("blobs", [comparison]).notes):
        said = " ".join(note for note in notes if note.startswith("Warning"))
        assert bool(said) is bool(warnings)
        assert all(words in said for words in warnings)
