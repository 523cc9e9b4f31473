"""Which runs of a plan are on disk, and which are missing, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmark.plan.coverage import SHOWN, missing, planned
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import Record, RunFolder, RunView, State, Status


@pytest.fixture
def runs(blobs):
    return plan(Sweep(["concat"], [blobs], [0, 1], recipe={"epochs": 1, "batch_size": 16})).runs


def found(seed, method="concat", record=None, problem="", **status):
    spec = {"method": {"label": method}, "dataset": {"label": "blobs"}, "seed": seed}
    return RunView(RunFolder(None), spec, Status(**status), record, problem)


def test_runs_that_are_not_there_have_the_spec_of_the_plan(runs, tmp_path):
    folder = RunFolder(runs[1].folder(tmp_path))
    folder.path.mkdir(parents=True)
    (folder.path / "spec.yaml").write_text("{")
    folder.write_status(Status(State.FAILED, cause="disk full"))
    first, second = planned(runs, tmp_path)
    assert (first.seed, first.status.state, first.record, first.problem) == (0, State.PLANNED, None, "")
    assert (second.seed, second.method, second.record) == (1, "concat", None)
    assert "spec.yaml" in second.problem


def test_seeds_of_one_reason_share_a_line_and_finished_runs_have_none():
    failed = {"state": State.FAILED, "cause": "out of memory"}
    runs = [
        found(3, **failed), found(1, **failed), found(0, state=State.PLANNED), found(2, record=Record("id", {})),
        found(5, "aug", problem="record.json: truncated"), found(4, state=State.RUNNING, cause="what failed before"),
    ]  # fmt: skip
    assert missing(runs) == [
        "blobs aug: seed 5 (record.json: truncated)",
        "blobs concat: seeds 1, 3 (failed: out of memory)",
        "blobs concat: seed 0 (planned)",
        "blobs concat: seed 4 (running)",
    ]


@pytest.mark.parametrize(
    ("methods", "last"), [(SHOWN, "blobs m19: seed 0 (planned)"), (23, "and 4 more lines like these")]
)
def test_no_more_lines_than_fit_are_shown(methods, last):
    lines = missing([replace(found(0, f"m{number:02}")) for number in range(methods)])
    assert len(lines) == SHOWN
    assert lines[-1] == last
