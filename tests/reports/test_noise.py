"""The noise report: numbers of noise.json, dashes and a command where there is none, stable files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from benchmark.reports.noise import SINGLE, STRENGTHS, NoiseReport, read_all, summary

from benchmark.records import ALL, NoiseScores, State
from benchmark.robustness import noisy_inputs
from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED

STEM = "noise-blobs--unified--2-epochs"


@pytest.fixture
def evaluated(made_up):
    """Write a run and its noise.json, in which accuracy falls by `slope` from 0.9 with the strength."""

    def write(method="concat", seed=0, slope=0.1, **options):
        folder = made_up(method, seed, **options)
        rows = [
            {"modality": name, "strength": strength, "accuracy": 0.9 - slope * strength * (1 + step), "macro_f1": 0.5}
            for step, name in enumerate(("audio", "video", ALL))
            for strength in noisy_inputs.STRENGTHS
        ]
        folder.write(NoiseScores.FILE, {"schema": NoiseScores.SCHEMA, "id": folder.plain_record()["id"], "rows": rows})
        return folder

    return write


def built(comparisons):
    return {artifact.name: artifact.content for artifact in NoiseReport().build(comparisons)}


def test_it_knows_what_the_evaluation_measures():
    assert {*STRENGTHS, SINGLE} <= set(noisy_inputs.STRENGTHS)


def test_the_table_has_means_over_seeds_of_all_and_of_single_modalities(evaluated, comparison_of, tmp_path):
    evaluated(seed=0, slope=0.05)
    evaluated(seed=1, slope=0.07)
    files = built(comparison_of(tmp_path))
    rows = csv.DictReader(io.StringIO(files[f"{STEM}.csv"].decode()))
    found = {(row["group"], row["column"]): row for row in rows}
    expected = {("noise on all", f"{strength:g}"): 90 - 18 * strength for strength in STRENGTHS}
    expected |= {("noise of 1 on", "audio"): 90 - 6, ("noise of 1 on", "video"): 90 - 12}
    assert set(found) == set(expected)
    for key, mean in expected.items():
        assert float(found[key]["mean"]) == pytest.approx(mean)
        assert found[key]["n"] == "2"
    assert {f"{STEM}.png", f"{STEM}.svg"} <= set(files)


def test_not_evaluated_failed_and_evaluated_runs_are_told_apart(evaluated, made_up, comparison_of, tmp_path):
    evaluated("concat")
    made_up("ogm")
    made_up("aug", state=State.FAILED, cause="diverged")
    (comparison,) = comparison_of(tmp_path)
    table = summary(comparison, read_all(comparison))
    shown = {name: {cell.text(1, "±") for cell in row} for name, row in table.rows}
    assert (shown["ogm"], shown["aug"]) == ({MISSING}, {FAILED})
    assert MISSING not in shown["concat"]
    text = " ".join(table.notes)
    assert "not evaluated: 1 runs (ogm). To do so: bench evaluate" in text
    assert "✗ aug, seed 0: diverged." in text


def test_a_method_that_the_plan_could_not_run_has_a_row(evaluated, comparison_of, tmp_path):
    evaluated("concat")
    (comparison,) = comparison_of(tmp_path)
    planned = replace(comparison, unsupported={"opm": "defined for two modalities"}, results={})
    table = summary(planned, read_all(planned))
    assert {cell.text(1, "±") for cell in dict(table.rows)["opm"]} == {UNSUPPORTED}
    assert any("n/a opm: defined for two modalities." in note for note in table.notes)


@pytest.mark.parametrize("content", ["", "[1]", '{"schema": 1}', '{"schema": 1, "id": "0000000000", "rows": [{}]}'])
def test_a_damaged_file_is_as_none(evaluated, comparison_of, tmp_path, content):
    (evaluated().path / NoiseScores.FILE).write_text(content)
    files = built(comparison_of(tmp_path))
    rows = csv.DictReader(io.StringIO(files[f"{STEM}.csv"].decode()))
    assert {row["symbol"] for row in rows} == {MISSING}
    assert f"{STEM}.png" not in files
    assert not list(NoiseReport().tables(comparison_of(tmp_path)))


@pytest.mark.full
def test_the_files_are_the_same_bytes_in_whatever_order_runs_are_found(evaluated, comparison_of, tmp_path):
    for seed in range(2):
        for place, method in enumerate(("concat", "aug", "ogm")):
            evaluated(method, seed, slope=0.01 * (1 + place + seed))
    first = built(comparison_of(tmp_path))
    assert first == built(comparison_of(tmp_path, shuffle=1)) == built(comparison_of(tmp_path, shuffle=2))
