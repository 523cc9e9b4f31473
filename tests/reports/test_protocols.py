"""The protocol table: gains under each protocol, and how they differ from the reference."""

from __future__ import annotations

import pytest
import yaml
from benchmark.reports.protocols import BASELINE, ProtocolsReport, by_dataset, protocols

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING

HERE, THERE = "unified, 2 epochs", "aug2025, 200 epochs"


def tables(comparisons):
    return {name: protocols(name, group) for name, group in by_dataset(comparisons).items()}


def shown(table):
    names = [(column.group, column.name) for column in table.columns]
    return {
        method: dict(zip(names, [c.text(k.digits, "±") for c, k in zip(row, table.columns, strict=True)], strict=True))
        for method, row in table.rows
    }


@pytest.fixture
def sweep(made_up):
    """Two methods, two seeds, two protocols; the other one looks at test."""
    for seed in range(2):
        made_up(BASELINE, seed, accuracy=0.60 + 0.02 * seed)
        made_up("aug", seed, accuracy=0.65 + 0.04 * seed)
        options = {"protocol": "aug2025", "selection": "oracle_test", "epochs": 200}
        made_up(BASELINE, seed, accuracy=0.10, oracle=0.64 + 0.02 * seed, **options)
        made_up("aug", seed, accuracy=0.10, oracle=0.75 + 0.02 * seed, **options)


def test_gains_and_differences_are_of_the_same_seeds(sweep, comparison_of, tmp_path):
    found = shown(tables(comparison_of(tmp_path))["blobs"])
    here, there = HERE, f"{THERE}†"
    apart = f"{THERE} − {HERE}"
    assert list(found["aug"]) == [(group, name) for group in (here, there, apart) for name in ("fused", "gain")]
    assert found["aug"][here, "fused"] == "67.0±2.8"
    assert found["aug"][here, "gain"] == "6.0±1.4"  # 5 and 7
    assert found["aug"][there, "gain"] == "11.0±0.0"
    assert found["aug"][apart, "fused"] == "9.0±1.4"  # 10 and 8
    assert found["aug"][apart, "gain"] == "5.0±1.4"  # 6 and 4
    assert found[BASELINE][there, "fused"] == "65.0±1.4"
    assert found[BASELINE][here, "gain"] == found[BASELINE][apart, "gain"] == MISSING
    assert found[BASELINE][apart, "fused"] == "4.0±0.0"


def test_a_seed_that_one_side_lacks_does_not_count(sweep, made_up, comparison_of, tmp_path):
    made_up("aug", 2, accuracy=0.99)
    found = shown(tables(comparison_of(tmp_path))["blobs"])
    assert found["aug"][HERE, "gain"] == "6.0±1.4"
    assert found["aug"][f"{THERE} − {HERE}", "fused"] == "9.0±1.4"


def test_holes_and_failures_are_symbols(sweep, made_up, comparison_of, tmp_path):
    made_up("ogm", 0, accuracy=0.7)
    made_up("pmr", 0, protocol="aug2025", selection="oracle_test", epochs=200, state=State.FAILED, cause="diverged")
    table = tables(comparison_of(tmp_path))["blobs"]
    found = shown(table)
    assert found["ogm"][HERE, "gain"] == "10.0"
    assert found["ogm"][f"{THERE}†", "fused"] == found["ogm"][f"{THERE} − {HERE}", "gain"] == MISSING
    assert found["pmr"][f"{THERE}†", "fused"] == FAILED
    assert found["pmr"][HERE, "fused"] == MISSING
    assert any("✗ pmr, seed 0: diverged." in note for note in table.notes)


def test_a_protocol_may_change_the_settings_of_the_data(sweep, made_up, comparison_of, tmp_path):
    folder = made_up("aug", 0, accuracy=0.8, oracle=0.8, protocol="ogm2022", selection="oracle_test")
    spec = folder.read_spec()
    spec["dataset"]["label"] = "blobs[seconds=3]"
    (folder.path / "spec.yaml").write_text(yaml.safe_dump(spec))
    found = shown(tables(comparison_of(tmp_path))["blobs"])
    assert found["aug"][f"blobs[seconds=3], ogm2022, 2 epochs − blobs, {HERE}", "fused"] == "15.0"


def test_no_difference_where_two_references_could_be_meant(sweep, made_up, comparison_of, tmp_path):
    made_up("aug", 0, accuracy=0.8, epochs=9)
    table = tables(comparison_of(tmp_path))["blobs"]
    assert not [column for column in table.columns if "−" in column.group]
    assert any("unclear" in note for note in table.notes)


def test_a_data_set_under_one_protocol_has_no_table(made_up, comparison_of, tmp_path):
    made_up("aug")
    made_up("aug", dataset="other")
    made_up("aug", dataset="other", protocol="aug2025")
    assert list(tables(comparison_of(tmp_path))) == ["other"]


def test_files_do_not_depend_on_the_order_of_runs(sweep, comparison_of, tmp_path):
    first = list(ProtocolsReport().build(comparison_of(tmp_path)))
    assert first == list(ProtocolsReport().build(comparison_of(tmp_path, shuffle=5)))
    assert [artifact.name for artifact in first] == [f"protocols-blobs.{end}" for end in ("tex", "md", "csv")]
