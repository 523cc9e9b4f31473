"""`mb.run`: the same runs as the command line, from a script, with the same errors."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import benchmark as mb
from benchmark.errors import UserError


@pytest.fixture
def sweep(blobs, tmp_path):
    return {"methods": ["concat", "late_sum"], "datasets": [blobs], "epochs": 2, "out": tmp_path / "runs", "jobs": 2}


@pytest.mark.full
def test_it_trains_what_is_missing_and_the_command_line_finds_it_done(sweep, bench, blobs):
    runs = mb.run(**sweep, seeds=range(2))
    assert [run.status.state for run in runs] == ["done"] * 4
    arguments = (
        "--methods",
        "concat,late_sum",
        "--datasets",
        blobs,
        "--seeds",
        "0-1",
        "--epochs",
        "2",
        "--out",
        "runs",
    )
    done = bench("run", *arguments, "--json")
    assert done.rc == 0
    assert {row["attempts"] for row in done.json} == {1}


def test_settings_reach_the_method_and_unsupported_ones_are_kept(sweep):
    runs = mb.run(
        **{**sweep, "methods": "ogm"}, settings={"ogm.alpha": 0.5, "protocol.optimizer.lr": 0.02}, on="inline"
    )
    assert [run.method for run in runs] == ["ogm[alpha=0.5]"]
    assert runs[0].spec["recipe"]["optimizer"]["lr"] == 0.02


@pytest.mark.full
def test_a_script_without_a_guard_runs_once(sweep, tmp_path, blobs):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import benchmark as mb
        print("started")
        runs = mb.run("concat", {blobs!r}, 0, epochs=1, out="runs", jobs=1)
        print(runs)
        """)
    )
    done = subprocess.run(
        [sys.executable, "-P", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["started", "<1 runs: 1 done>"]


def test_every_problem_is_told_and_nothing_is_written(sweep, tmp_path):
    with pytest.raises(UserError) as caught:
        mb.run(**{**sweep, "methods": "concta"}, seeds="x")
    assert len(caught.value.problems) == 2
    with pytest.raises(UserError, match="threads"):
        mb.run(**sweep, thread=2)
    assert not (tmp_path / "runs").exists()
