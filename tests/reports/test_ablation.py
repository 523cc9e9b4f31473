"""The ablation table says what a setting reaches, what it grew to and what it weighs, and guesses nothing."""

from __future__ import annotations

import json

import pytest
from benchmark.reports.ablation import AblationReport, ablation

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def runs(made_up, tmp_path):
    """Write a made-up run with parameters, own accuracies and a history of classifier counts."""

    def write(method, seed=0, parameters=10, own=None, probe=None, classifiers=(), **options):
        folder = made_up(method, seed, **options)
        if classifiers:
            folder.cut_history(0)
            for epoch, counts in enumerate(classifiers):
                train = {f"classifiers/{modality}": float(count) for modality, count in counts.items()}
                folder.append_history({"epoch": epoch, "train": {"loss": 1.0, **train}})
        if (folder.path / "record.json").exists():
            record = json.loads((folder.path / "record.json").read_text())
            record["num_parameters"] = parameters
            for entry in record["rules"].values():
                for modality, value in (own or {}).items():
                    entry["test"][modality]["accuracy"] = value
                entry["probe"].update(probe or {})
            folder.write("record.json", record)
        return folder

    return write


def cells(table, method):
    names = [f"{column.group} {column.name}".strip() for column in table.columns]
    return dict(zip(names, dict(table.rows)[method], strict=True))


def test_numbers_of_a_row_are_those_of_the_records(runs, tmp_path, comparison_of):
    runs("aug", 0, 100, {"audio": 0.6}, {"audio": 0.7}, [{"audio": 1, "video": 1}, {"audio": 1, "video": 3}])
    runs("aug", 1, 200, {"audio": 0.4}, {"audio": 0.9}, [{"audio": 1, "video": 1}, {"audio": 1, "video": 4}])
    row = cells(ablation(*comparison_of(tmp_path)), "aug")
    assert row["fused"].values == (50.0, 50.0)
    assert row["audio own"].values == (60.0, 40.0)
    assert row["audio probe"].values == (70.0, 90.0)
    assert row["video classifiers"].values == (3.0, 4.0)  # of the last epoch, not the first
    assert row["parameters"].mean == 150


def test_the_selection_rule_of_the_comparison_decides(runs, tmp_path, comparison_of):
    runs("concat", 0, accuracy=0.5, oracle=0.8, selection="oracle_test")
    table = ablation(*comparison_of(tmp_path))
    assert cells(table, "concat")["fused†"].values == (80.0,)
    assert "chosen on the test set" in table.notes[-1]


def test_no_column_of_classifiers_where_no_method_logs_them(runs, tmp_path, comparison_of):
    runs("concat")
    assert not [column for column in ablation(*comparison_of(tmp_path)).columns if column.name == "classifiers"]


def test_a_modality_that_a_method_does_not_have_is_missing_and_not_zero(runs, tmp_path, comparison_of):
    folder = runs("one")
    record = json.loads((folder.path / "record.json").read_text())
    for entry in record["rules"].values():
        del entry["test"]["video"], entry["probe"]["video"]
    folder.write("record.json", record)
    row = cells(ablation(*comparison_of(tmp_path)), "one")
    assert row["audio own"].values
    assert (row["video own"].values, row["video own"].symbol) == ((), MISSING)
    assert (row["video probe"].values, row["video probe"].symbol) == ((), MISSING)


def test_failed_and_unfinished_runs_differ_and_are_named(runs, tmp_path, comparison_of):
    runs("good")
    runs("bad", state=State.FAILED, cause="out of GPU memory")
    runs("waiting", state=State.INTERRUPTED)
    table = ablation(*comparison_of(tmp_path))
    assert {cell.symbol for cell in dict(table.rows)["bad"] if not cell.values} == {FAILED}
    assert {cell.symbol for cell in dict(table.rows)["waiting"]} == {MISSING}
    assert any("bad, seed 0: out of GPU memory" in note for note in table.notes)
    assert any("waiting, seed 0 (interrupted)" in note for note in table.notes)


def test_the_order_of_records_changes_no_byte(runs, tmp_path, comparison_of):
    for method in ("a", "b", "c"):
        for seed in range(3):
            runs(method, seed, parameters=seed, accuracy=seed / 10)
    built = [list(AblationReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2, 3)]
    assert built[0] == built[1] == built[2]
    assert {artifact.name.rsplit(".")[-1] for artifact in built[0]} == {"tex", "md", "csv"}
