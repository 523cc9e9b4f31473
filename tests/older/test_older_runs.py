"""Runs of release 0.1.0, which wrote digests of code in the place of versions, are read, counted and gone on with.

`runs-0.1.tar.xz` was written by it: `concat` and the plugin `mine.py` of one epoch each, done; `multitask` killed after
the first of three epochs; and the history and the record of a `multitask` that nobody killed.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from benchmark.errors import UserError
from benchmark.plan.spec import RunSpec, build_dataset, load_method
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import RunFolder, State, view, view_all
from benchmark.registry import REPORTS
from benchmark.report import compare
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute, single_run
from benchmark.versions import UNVERSIONED, migrate

DATASET = 'dialpad[width={"image":0.25,"audio":0.25}]'
MADE_BY = {"torch": "2.11.0", "scikit-learn": "1.9.1"}
"""Libraries that are part of a run's id: torch by its version, scikit-learn since the digits come from it."""
MACHINE = {"torch": "2.11.0", "processor": "AVX512", "probe": "17c08efaddaf"}
"""Where the runs were trained, as golden histories tell machines apart."""

comparable = pytest.mark.skipif(
    any(version(name) != made for name, made in MADE_BY.items()),
    reason=f"the runs were made with {MADE_BY}: with others every run is another one",
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder with what 0.1.0 wrote."""
    with tarfile.open(Path(__file__).parent / "runs-0.1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.fixture
def run_of(old: Path) -> Callable[[str], RunFolder]:
    """Return the only run of a method, whose folder keeps its name."""

    def find(method: str) -> RunFolder:
        (path,) = (old / "runs" / "dialpad" / method).glob("*/s0-*")
        return RunFolder(path)

    return find


@pytest.fixture
def plan_again(old: Path) -> Callable[[str, int], RunSpec]:
    """Plan a run as 0.1.0 did: `plan_again("concat", 1)`."""

    def give(method: str, epochs: int) -> RunSpec:
        (spec,) = plan(Sweep([method], [DATASET], [0], recipe={"epochs": epochs})).runs
        return spec

    return give


@pytest.mark.full
@comparable
def test_the_same_command_counts_finished_runs_as_done_and_leaves_them_as_they_are(old, run_of, bench):
    files = [path for name in ("concat", "mine") for path in run_of(name).path.rglob("*") if path.is_file()]
    before = {path: path.read_bytes() for path in files}
    options = ("--datasets", DATASET, "--epochs", 1, "--seeds", 0, "--out", "runs", "--on", "inline")
    done = bench("run", "--methods", "concat,./mine.py", *options)
    assert done.rc == 0, done.said
    assert {path: path.read_bytes() for path in files} == before
    assert run_of("concat") != run_of("mine")  # each still the only folder of its method


@comparable
def test_an_interrupted_run_goes_on_and_ends_where_0_1_0_would_have_ended(old, plan_again, run_of, load, repo):
    spec, attempt = plan_again("multitask", 3), Attempt(old / "runs")
    folder = run_of("multitask")
    assert spec.folder(attempt.out) == folder.path
    assert folder.read_status().epoch == 1
    with single_run(1):
        assert execute(spec, attempt) is State.DONE
        assert folder.read_status().first_epoch == 1
        golden: ModuleType = load(repo / "tests" / "golden" / "generate.py")
        exact = golden.machine() == MACHINE
    found = folder.read_history()
    wanted = [json.loads(line) for line in (old / "whole-history.jsonl").read_text().splitlines()]
    if exact:
        assert found == wanted
        assert folder.plain_record()["rules"] == json.loads((old / "whole-record.json").read_text())["rules"]
    losses = [[line["test"]["fused"]["loss"] for line in lines] for lines in (found, wanted)]
    assert all(math.isclose(one, two, rel_tol=golden.TOLERANCE) for one, two in zip(*losses, strict=True))
    assert spec.folder(attempt.out) == folder.path
    assert folder.is_done()


@comparable
def test_old_and_new_runs_stand_in_one_table(old, plan_again):
    with single_run(1):
        assert execute(plan_again("late_sum", 1), Attempt(old / "runs")) is State.DONE
    comparisons, problems = compare(view_all(old / "runs"))
    assert not problems
    assert sorted(one.methods for one in comparisons) == [["concat", "late_sum", "mine"], ["multitask"]]  # by epochs
    artifacts = REPORTS.find("comparison").load()().build(comparisons)
    assert any(all(name in table.content for name in (b"concat", b"late_sum", b"mine")) for table in artifacts)


def test_a_spec_of_0_1_0_is_read_as_one_of_version_1(run_of):
    for name, outside in {"concat": False, "multitask": False, "mine": True}.items():
        spec = view(run_of(name)).spec
        assert "core" not in spec
        assert spec["numerics"] == spec["method"]["version"] == spec["dataset"]["version"] == 1
        assert bool(spec["method"]["code"]) is outside
        assert migrate(spec) == spec


@comparable
@pytest.mark.parametrize("part", ["core", "method", "dataset"])
def test_a_run_of_other_code_of_that_time_is_read_but_neither_counted_nor_resumed(old, plan_again, run_of, part):
    folder = run_of("concat")
    spec = yaml.safe_load((folder.path / "spec.yaml").read_text())
    change = {part: "0123456789ab" if part == "core" else {**spec[part], "code": "0123456789ab"}}
    (folder.path / "spec.yaml").write_text(yaml.safe_dump({**spec, **change}))
    assert view(folder).record
    assert plan_again("concat", 1).folder(old / "runs") != folder.path
    found = RunSpec.model_validate(folder.read_spec())
    build = load_method if part != "dataset" else partial(build_dataset, data_root=None)
    with pytest.raises(UserError, match="before numbers had versions, got version 1"):
        build(found)


def test_two_runs_of_unknown_old_code_keep_two_ids(run_of):
    spec = yaml.safe_load((run_of("concat").path / "spec.yaml").read_text())
    found = [RunSpec.model_validate(migrate({**spec, "core": core})) for core in ("0123456789ab", "ba9876543210")]
    assert {one.numerics for one in found} == {UNVERSIONED}
    assert found[0].id != found[1].id
