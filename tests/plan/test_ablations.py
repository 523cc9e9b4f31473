"""`bench ablate`: the grid that a method declares, its runs and its table; `bench report` says what a sweep lacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmark.errors import UserError
from benchmark.plan.ablations import grid
from benchmark.registry import METHODS


def test_the_grid_is_the_method_its_ablations_and_what_is_left_when_it_is_off():
    kind = METHODS.find("ogm").load()
    found = grid("ogm")
    assert found[0] == "ogm"
    assert found[-2:] == ["concat", "sum"]
    assert len(found) == 1 + len(kind.ablations) + 2


def test_settings_that_were_typed_stay_in_every_row_of_the_method():
    rows = [row for row in grid("ogm[rho=sum]") if row.startswith("ogm")]
    assert len(rows) > 2
    assert all("rho=sum" in row for row in rows)


def test_without_ablations_the_variants_are_the_rows():
    assert METHODS.find("channel").load().ablations == ()
    assert grid("channel")[:2] == ["channel", "channel[variant=released]"]


def test_a_method_of_which_nothing_can_be_taken_away_is_refused_with_what_to_do():
    with pytest.raises(UserError, match="ablations"):
        grid("sum")


@pytest.mark.parametrize("name", sorted(METHODS.known()))
def test_every_declared_ablation_is_a_setting_that_changes_something(name):
    kind = METHODS.find(name).load()
    settings = [kind.Config(**change) for change in kind.ablations]
    assert not settings or kind.Config() not in settings
    assert all(first != second for i, first in enumerate(settings) for second in settings[:i])


@pytest.mark.full
def test_ablate_trains_what_is_missing_and_writes_the_table(bench, blobs, tmp_path):
    options = ("--datasets", blobs, "--epochs", "1", "--on", "inline", "--out", "runs", "--to", "table")
    done = bench("ablate", "etmc", *options)
    assert done.rc == 0, done.said
    (table,) = [path.read_text() for path in (tmp_path / "table").glob("ablation-*.md")]
    assert "| etmc |" in table
    assert "| etmc[pseudo_view=false] |" in table
    plan = bench("ablate", "etmc", *options, "--dry-run", "--json")
    assert {run["state"] for run in plan.json["runs"]} == {"done"}


@pytest.mark.full
def test_report_on_an_experiment_says_what_is_missing_and_the_command_that_fills_it(bench, blobs, tmp_path):
    (tmp_path / "x.yaml").write_text(
        f"methods: [concat, late_sum]\ndatasets: [{blobs}]\nepochs: 1\nreports: [ablation]"
    )
    nothing = bench("report", "x.yaml", "--out", "runs")
    assert nothing.rc == 2
    assert "bench run x.yaml --out runs" in nothing.said
    assert bench("run", "x.yaml", "--methods", "concat", "--on", "inline", "--out", "runs").rc == 0
    partial = bench("report", "x.yaml", "--out", "runs")
    assert partial.rc == 0
    assert "1 of 2 runs are missing or failed" in partial.said
    assert "late_sum: seed 0 (planned)" in partial.said
    assert "To fill it: bench run x.yaml --out runs" in partial.said
    table = next((tmp_path / "report").glob("ablation-*.md")).read_text()
    assert "Partial: 1 of 2 runs are finished" in table
    assert "| late_sum | — |" in table
    assert bench("run", "x.yaml", "--on", "inline", "--out", "runs").rc == 0
    assert "missing or failed" not in bench("report", "x.yaml", "--out", "runs").said


@pytest.mark.full
def test_the_default_reports_load_no_torch(bench, made_up, tmp_path):
    made_up("concat")
    code = "import sys; from benchmark.cli import app; app(standalone_mode=False); sys.exit('torch' in sys.modules)"

    line = [sys.executable, "-P", "-c", code, "report", "--out", str(tmp_path / "runs"), "--to", str(tmp_path / "to")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-500:]
