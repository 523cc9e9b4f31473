"""The missing-modality report: numbers of missing.json, dashes and a command where there is none, stable files."""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys

import pytest
from benchmark.reports.missing import FILLS, RATES, MissingReport, read, read_all, summary

from benchmark.records import MIXED, MissingScores, State, scan, view
from benchmark.report import compare
from benchmark.robustness import missing_modalities
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def evaluated(made_up):
    """Write a run and its missing.json, in which accuracy falls by `slope` from 0.9 with the rate."""

    def write(method="concat", seed=0, slope=0.5, fills=tuple(FILLS), **options):
        folder = made_up(method, seed, **options)
        rows = [
            {
                "modality": modality, "rate": tenth / 10, "fill": fill,
                "accuracy": 0.9 - slope * (tenth / 10) * (1 + step) - 0.01 * place, "macro_f1": 0.5,
            }
            for place, fill in enumerate(fills)
            for step, modality in enumerate((MIXED, "audio", "video"))
            for tenth in range(11)
        ]  # fmt: skip
        head = {"schema": MissingScores.SCHEMA, "id": folder.plain_record()["id"]}
        folder.write(MissingScores.FILE, {**head, "rows": rows})
        return folder

    return write


STEM = "blobs--unified--2-epochs"


def built(tmp_path, shuffle=None):
    runs = list(scan(tmp_path / "runs"))
    if shuffle is not None:
        random.Random(shuffle).shuffle(runs)
    return {artifact.name: artifact.content for artifact in MissingReport().build(compare(runs)[0])}


def cells(content):
    return {(row["method"], row["group"], row["column"]): row for row in csv.DictReader(io.StringIO(content.decode()))}


def test_it_knows_what_the_evaluation_measures():
    assert list(FILLS) == list(missing_modalities.FILLS)
    assert set(RATES) <= set(missing_modalities.RATES)


def test_it_imports_no_torch():
    code = "import sys, benchmark.reports.missing, benchmark.reports.capacity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False, timeout=120).returncode == 0


def test_each_fill_has_a_table_of_means_over_seeds(evaluated, tmp_path):
    evaluated(seed=0, slope=0.2)
    evaluated(seed=1, slope=0.4)
    files = built(tmp_path)
    assert set(files) == {f"missing-{fill}-{STEM}.{end}" for fill in FILLS for end in ("tex", "md", "csv")} | {
        f"missing-{STEM}.{end}" for end in ("png", "svg", "pdf")
    }  # fmt: skip
    for place, fill in enumerate(FILLS):
        found = cells(files[f"missing-{fill}-blobs--unified--2-epochs.csv"])
        expected = {("any one missing", f"{rate} %"): 90 - 0.3 * rate for rate in (0, 20, 50, 100)}
        expected |= {("audio missing", f"{rate} %"): 90 - 2 * 0.3 * rate for rate in (20, 50, 100)}
        expected |= {("video missing", f"{rate} %"): 90 - 3 * 0.3 * rate for rate in (20, 50, 100)}
        assert {key[1:] for key in found} == set(expected)
        for key, mean in expected.items():
            assert float(found["concat", *key]["mean"]) == pytest.approx(mean - place)
            assert found["concat", *key]["n"] == "2"


def test_not_evaluated_failed_and_unfinished_runs_are_told_apart(evaluated, made_up, tmp_path):
    evaluated("concat")
    made_up("ogm")
    made_up("aug", state=State.FAILED, cause="diverged")
    made_up("late_sum", state=State.RUNNING)
    (comparison,) = compare(scan(tmp_path / "runs"))[0]
    table = summary(comparison, read_all(comparison), "zero")
    shown = {name: {cell.text(1, "±") for cell in row} for name, row in table.rows}
    assert shown["ogm"] == shown["late_sum"] == {MISSING}
    assert shown["aug"] == {FAILED}
    assert MISSING not in shown["concat"]
    text = " ".join(table.notes)
    assert "not evaluated: 1 runs (ogm). To do so: bench evaluate" in text
    assert "✗ aug, seed 0: diverged." in text
    assert "Not counted: late_sum, seed 0 (interrupted)." in text


OLD = '{"schema": 1, "id": "0000000000", "rows": [{"modality": "mixed", "fill": "zero", "rate": 0.5, "accuracy": 1.0}]}'


@pytest.mark.parametrize("content", ["", "[1]", '{"schema": 2}', '{"schema": 9, "id": "0000000000", "rows": []}', OLD])
def test_a_damaged_file_is_as_none(evaluated, tmp_path, content):
    (evaluated().path / "missing.json").write_text(content)
    files = built(tmp_path)
    assert {row["symbol"] for row in cells(files["missing-zero-blobs--unified--2-epochs.csv"]).values()} == {MISSING}
    assert b"bench evaluate" in files["missing-zero-blobs--unified--2-epochs.md"]
    assert not any(name.endswith(("png", "svg", "pdf")) for name in files)


def test_a_file_of_another_run_is_not_read(evaluated, made_up):
    one, other = evaluated(seed=0), made_up(seed=1)
    (other.path / "missing.json").write_bytes((one.path / "missing.json").read_bytes())
    assert read(view(one))
    assert not read(view(other))


def test_the_terminal_shows_only_what_was_evaluated(evaluated, made_up, tmp_path):
    evaluated(dataset="one")
    made_up(dataset="other")
    (table,) = MissingReport().tables(compare(scan(tmp_path / "runs"))[0])
    assert table.caption.startswith("one")


@pytest.mark.full
def test_the_files_are_the_same_bytes_in_whatever_order_runs_are_found(evaluated, tmp_path):
    for seed in range(2):
        for position, method in enumerate(("concat", "aug", "ogm")):
            evaluated(method, seed, slope=0.1 * (position + seed))
    evaluated("concat", dataset="other")
    first = built(tmp_path)
    assert first == built(tmp_path, shuffle=1) == built(tmp_path, shuffle=2)
    assert b"<svg" in first["missing-blobs--unified--2-epochs.svg"]


def test_the_best_value_of_a_column_is_marked(evaluated, tmp_path):
    evaluated("concat", slope=0.4)
    evaluated("aug", slope=0.1)
    (comparison,) = compare(scan(tmp_path / "runs"))[0]
    marks = {
        name: [str(cell.mark) for cell in row] for name, row in summary(comparison, read_all(comparison), "zero").rows
    }
    assert marks == {"aug": ["", *["best"] * 9], "concat": ["", *["second"] * 9]}


def test_fills_that_inputs_do_not_allow_have_no_table(evaluated, tmp_path):
    evaluated(fills=("zero",))
    files = built(tmp_path)
    assert {name for name in files if name.endswith("md")} == {"missing-zero-blobs--unified--2-epochs.md"}
    assert "missing-blobs--unified--2-epochs.png" in files
