"""The capacity report: cost beside accuracy, all settings of a data set in one table."""

from __future__ import annotations

import json
import random

import pytest
import yaml
from benchmark.reports.capacity import CapacityReport, by_dataset, capacity

from benchmark.records import State, scan
from benchmark.report import compare
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def sized(made_up):
    """Write a run with its sizes; `label` is the data set's with its settings."""

    def write(method="concat", seed=0, label="blobs", parameters=12_345, flops=6_543_210, seconds=2.5, **options):
        folder = made_up(method, seed, **options)
        spec = folder.read_spec()
        spec["dataset"]["label"] = label
        (folder.path / "spec.yaml").write_text(yaml.safe_dump(spec))
        record = folder.plain_record() | {"num_parameters": parameters}
        record["seconds"]["train"] = seconds
        folder.write("record.json", record if flops is None else record | {"flops": flops})
        return folder

    return write


def tables(tmp_path, shuffle=None):
    runs = list(scan(tmp_path / "runs"))
    if shuffle is not None:
        random.Random(shuffle).shuffle(runs)
    comparisons = compare(runs)[0]
    return {name: capacity(name, group) for name, group in by_dataset(comparisons).items()}


def shown(table):
    names = [column.name for column in table.columns]
    return {
        row: dict(zip(names, [cell.text(column.digits, "±") for cell, column in zip(cells, table.columns, strict=True)],
                      strict=True))
        for row, cells in table.rows
    }  # fmt: skip


def test_a_row_has_cost_and_accuracy(sized, tmp_path):
    sized(accuracy=0.8, seconds=2.0)
    sized(seed=1, accuracy=0.6, seconds=4.0)
    assert shown(tables(tmp_path)["blobs"]) == {
        "concat @ blobs": {
            "parameters (k)": "12.3", "MFLOPs per sample": "6.54", "passes per epoch": MISSING,
            "s per epoch": "1.50±0.71", "training (s)": "3.0±1.4",
            "fused": "70.0±14.1", "audio, own": "70.0±14.1", "video, own": "70.0±14.1",
        }
    }  # fmt: skip


def test_passes_memory_and_seconds_of_an_epoch_are_those_of_history_and_record(sized, tmp_path):
    for seed, served in enumerate((100, 150)):
        folder = sized("gblend", seed, seconds=3.0)
        record = folder.plain_record()
        record |= {"num_samples": {"train": 50}, "memory": {"process": 812_400_000}}
        folder.write("record.json", record)
        lines = [line | {"samples": served * (1 + line["epoch"])} for line in folder.read_history()]
        (folder.path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sized("concat")  # by a version that recorded neither
    found = shown(tables(tmp_path)["blobs"])
    assert found["gblend @ blobs"]["passes per epoch"] == "3.75±1.06"  # (2 + 4) / 2 and (3 + 6) / 2
    assert found["gblend @ blobs"]["s per epoch"] == "1.50"
    assert found["gblend @ blobs"]["memory (MB)"] == "812"
    assert "GPU memory (MB)" not in found["gblend @ blobs"]
    assert found["concat @ blobs"]["memory (MB)"] == found["concat @ blobs"]["passes per epoch"] == MISSING


def test_widths_of_one_data_set_stand_together_and_other_data_sets_apart(sized, tmp_path):
    sized(label="blobs")
    sized("aug", label="blobs")
    sized(label="blobs[width=2]")
    sized(dataset="other", label="other")
    found = tables(tmp_path)
    assert list(shown(found["blobs"])) == ["aug @ blobs", "concat @ blobs", "concat @ blobs[width=2]"]
    assert list(shown(found["other"])) == ["concat @ other"]


def test_two_protocols_on_the_same_data_have_rows_of_their_own_names(sized, tmp_path):
    sized(protocol="unified")
    sized(protocol="other")
    assert set(shown(tables(tmp_path)["blobs"])) == {
        "concat @ blobs, other, 2 epochs",
        "concat @ blobs, unified, 2 epochs",
    }


@pytest.mark.parametrize(
    ("sizes", "name", "texts"),
    [
        ((11_400_000, 23_512_345), "parameters (M)", ["11.4", "23.5"]),
        ((23_512_345, 250_000), "parameters (M)", ["23.512", "0.250"]),
        ((1_200, 340_000), "parameters (k)", ["1.20", "340.00"]),
    ],
)
def test_parameters_have_a_unit_and_digits_that_show_the_smallest_model(sized, tmp_path, sizes, name, texts):
    for method, size in zip(("aug", "concat"), sizes, strict=True):
        sized(method, parameters=size)
    assert [row[name] for row in shown(tables(tmp_path)["blobs"]).values()] == texts


def test_sizes_that_differ_between_seeds_have_a_spread(sized, tmp_path):
    sized("aug", 0, parameters=10_000, flops=1_000_000)
    sized("aug", 1, parameters=20_000, flops=3_000_000)
    row = shown(tables(tmp_path)["blobs"])["aug @ blobs"]
    assert (row["parameters (k)"], row["MFLOPs per sample"]) == ("15.0±7.1", "2.00±1.41")


def test_what_was_not_recorded_failed_or_has_no_head_is_told_apart(sized, made_up, tmp_path):
    folder = sized("unimodal", flops=None)
    record = json.loads((folder.path / "record.json").read_text())
    del record["rules"]["best_valid"]["test"]["audio"]
    folder.write("record.json", record)
    made_up("aug", state=State.FAILED, cause="diverged")
    table = tables(tmp_path)["blobs"]
    found = shown(table)
    assert (found["unimodal @ blobs"]["MFLOPs per sample"], found["unimodal @ blobs"]["audio, own"]) == (MISSING,) * 2
    assert found["unimodal @ blobs"]["video, own"] == "50.0"
    assert set(found["aug @ blobs"].values()) == {FAILED}
    assert "✗ aug, seed 0: diverged." in table.notes


def test_accuracy_follows_the_selection_of_the_protocol_and_is_marked_if_it_looked_at_test(sized, tmp_path):
    sized(accuracy=0.5, oracle=0.7, selection="oracle_test")
    table = tables(tmp_path)["blobs"]
    assert shown(table)["concat @ blobs"]["fused"] == "70.0"
    assert any("oracle_test†" in note for note in table.notes)


def test_files_do_not_depend_on_the_order_of_runs(sized, tmp_path):
    for method in ("concat", "aug"):
        for label in ("blobs", "blobs[width=2]"):
            sized(method, label=label)
    first, second = tables(tmp_path)["blobs"], tables(tmp_path, shuffle=3)["blobs"]
    assert first.to_latex() == second.to_latex()
    names = [artifact.name for artifact in CapacityReport().build(compare(scan(tmp_path / "runs"))[0])]
    assert names == ["capacity-blobs.tex", "capacity-blobs.md", "capacity-blobs.csv"]
