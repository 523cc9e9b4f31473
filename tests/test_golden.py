"""No number changes unless its version is raised: golden histories of every method and data set."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from benchmark.data import Split
from benchmark.plan.snapshot import take_snapshot
from benchmark.registry import DATASETS, METHODS
from benchmark.train.execute import single_run


@pytest.fixture(scope="module")
def golden(load: Callable[[Path], ModuleType], repo: Path) -> ModuleType:
    return load(repo / "tests" / "golden" / "generate.py")


@pytest.fixture(scope="module")
def check(golden: ModuleType) -> Iterator[Any]:
    """Compare with the golden file, in one thread."""
    with single_run(1):
        check = golden.Check.here()
        if not check.exact:
            warnings.warn(
                f"this machine ({golden.machine()}) is not the one of the golden file ({check.kept['machine']}): only "
                f"losses are compared, to {golden.TOLERANCE:g} relative, and splits",
                stacklevel=1,
            )
        yield check


@pytest.mark.parametrize("name", METHODS.known())
def test_the_numbers_of_a_method_are_those_of_its_version(golden, check, name):
    problem = check.method(name, golden.quick_cases(name))
    assert not problem, problem


@pytest.mark.full
@pytest.mark.parametrize("name", METHODS.known())
def test_the_numbers_of_a_method_on_more_data_are_those_of_its_version(golden, check, name):
    problem = check.method(name, golden.full_cases(name))
    assert not problem, problem


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.full] * (name == "nvgesture")) for name in DATASETS.known()]
)
def test_the_numbers_of_a_data_set_are_those_of_its_version(check, name):
    problem = check.dataset(name)
    assert not problem, problem


def test_the_golden_file_holds_nothing_that_is_gone(golden, check):
    cases = {
        case.name for name in METHODS.known() for of in (golden.quick_cases, golden.full_cases) for case in of(name)
    }
    assert set(check.kept["cases"]) == cases
    assert set(check.kept["data"]) == set(DATASETS.known())


# --- what the golden file is for -------------------------------------------------------------------------------------


def test_a_changed_method_fails_by_its_name(golden, check, monkeypatch):
    kind = METHODS.find("ogm").load()
    plain = kind.loss
    monkeypatch.setattr(kind, "loss", lambda self, out, batch: 1.1 * plain(self, out, batch))
    problem = check.method("ogm", list(golden.quick_cases("ogm"))[:1])
    assert "method ogm: its numbers have changed and no version was raised" in problem
    assert f"`version` of {kind.__name__} in benchmark/methods/ogm.py" in problem
    assert golden.COMMAND in problem
    assert not check.method("late_sum", list(golden.quick_cases("late_sum"))[:1])


def test_a_changed_data_set_fails_by_its_name(golden, check, monkeypatch):
    kind = DATASETS.find("dialpad").load()
    monkeypatch.setattr(kind, "split", lambda self, samples, share: whole_split(len(samples)))
    assert "data set dialpad: its numbers have changed" in check.dataset("dialpad")
    assert "`version` of Dialpad in benchmark/datasets/dialpad.py" in check.dataset("dialpad")


def whole_split(count: int) -> Split:
    """Return the first samples to train on, the others to select and test with."""
    return Split(np.arange(count - 20), np.arange(count - 20, count - 10), np.arange(count - 10, count))


def test_a_changed_evaluation_fails_as_the_cores(golden, check, monkeypatch):
    monkeypatch.setattr(golden, "probe", lambda *_: 0.5)
    if check.exact:
        assert "NUMERICS in benchmark/versions.py" in check.method("concat", list(golden.quick_cases("concat"))[:1])


def test_a_raised_version_asks_for_the_file_to_be_written_again(golden, check, monkeypatch):
    monkeypatch.setattr(METHODS.find("ogm").load(), "version", 2)
    assert f"version of method ogm: the golden file has 1, the code has 2. Write the file again: {golden.COMMAND}" in (
        check.method("ogm", [])
    )
    monkeypatch.setattr(golden, "NUMERICS", 2)
    assert "NUMERICS: the golden file has 1, the code has 2" in check.method("late_sum", [])


def test_a_method_made_of_others_rises_with_them(golden, check, monkeypatch):
    (case,) = [case for case in golden.quick_cases("federated") if case.settings.get("local") == "pmr"]
    found = golden.run_case(case, check.kept["cases"][case.name]["logged"])
    assert not check.parts_raised({case.name: found})
    monkeypatch.setattr(METHODS.find("pmr").load(), "version", 99)
    assert "parts" in check.method("federated", [case])


def test_where_other_bits_are_computed_losses_are_compared_with_a_tolerance(golden, check):
    (case, *_) = golden.quick_cases("ogm")
    kept, other = check.kept["cases"][case.name], golden.Check(check.kept, exact=False)
    near = {**kept, "logits": "other", "test": [loss * (1 + 1e-6) for loss in kept["test"]]}
    far = {**kept, "test": [loss * (1 + 1e-4) for loss in kept["test"]]}
    assert not other.changed("cases", {case.name: near})
    assert other.changed("cases", {case.name: far}) == [case.name]
    assert other.changed("cases", {"a new one": kept}) == ["a new one"]


# --- on a copy of the tree -------------------------------------------------------------------------------------------

IDS = """
import sys
from benchmark.plan.sweep import Sweep, plan
methods = ["ogm", "federated[local=pmr]", "aug[variant=released]"]
sys.stdout.write(" ".join(run.id for run in plan(Sweep(methods, ["dialpad"], [0])).runs))
"""


@pytest.fixture
def copied(tmp_path: Path, repo: Path) -> Path:
    """A copy of the package to edit, in its installed layout, with `tests/golden` beside it."""
    copied = take_snapshot(tmp_path, []).path
    shutil.copytree(repo / "tests" / "golden", copied / "tests" / "golden")
    return copied


def python(copied: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a copy of the package, in one thread."""
    env = {**os.environ, "PYTHONPATH": str(copied), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copied, env=env, capture_output=True, text=True, timeout=300, check=False)


def rename_locals(source: str) -> str:
    """Rename every variable that a function assigns, except what is also an argument or declared in it."""
    tree = ast.parse(source)
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        nodes = list(ast.walk(function))
        bound = {getattr(node, "arg", None) or getattr(node, "name", None) for node in nodes}
        bound |= {name for node in nodes if isinstance(node, ast.Nonlocal | ast.Global) for name in node.names}
        bound |= {node.asname for node in nodes if isinstance(node, ast.alias)}
        names = [node for node in nodes if isinstance(node, ast.Name)]
        stored = {node.id for node in names if isinstance(node.ctx, ast.Store) and not node.id.endswith("_")} - bound
        for node in names:
            node.id += "_" if node.id in stored else ""
    return ast.unparse(tree)


@pytest.mark.full
def test_renaming_locals_and_moving_functions_changes_no_id_and_no_number(copied, golden, check):
    before = python(copied, "-c", IDS)
    package = copied / "benchmark"
    edited = [package / f"{name}.py" for name in ("data", "method", "model", "protocol", "seeds", "training")]
    edited += [*(package / "train").glob("*.py"), *(package / "methods").glob("*.py")]
    for path in edited:
        path.write_text(rename_locals(path.read_text()))
    training = package / "training.py"
    tree = ast.parse(training.read_text())
    moved = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "batch_sizes")
    (package / "elsewhere.py").write_text(ast.unparse(moved))
    tree.body[tree.body.index(moved)] = ast.parse("from benchmark.elsewhere import batch_sizes").body[0]
    training.write_text(ast.unparse(tree))
    assert "line_ = " in (package / "train" / "trainer.py").read_text()
    after = python(copied, "-c", IDS)
    assert len(before.stdout.split()) == 3, before.stderr
    assert after.stdout == before.stdout, after.stderr
    if check.exact:
        written = python(copied, "tests/golden/generate.py", "ogm", "federated")
        assert written.returncode == 0, written.stdout + written.stderr
        assert (copied / "tests" / "golden" / golden.FILE.name).read_text() == golden.FILE.read_text()


@pytest.mark.full
def test_another_learning_rate_rule_fails_by_name_until_the_version_is_raised(copied, check):
    path = copied / "benchmark" / "protocol.py"
    rule = "math.pi * epoch / epochs"
    assert path.read_text().count(rule) == 1
    path.write_text(path.read_text().replace(rule, "math.pi * (epoch + 1) / epochs"))
    refused = python(copied, "tests/golden/generate.py", "late_sum")
    assert refused.returncode == 1, refused.stderr
    if not check.exact:  # no single method is compared there
        return
    assert "method late_sum: its numbers have changed and no version was raised" in refused.stdout
    assert "raise NUMERICS in benchmark/versions.py" in refused.stdout
    versions = copied / "benchmark" / "versions.py"
    versions.write_text(versions.read_text().replace("NUMERICS = 1\n", "NUMERICS = 2\n"))
    assert "give no names" in python(copied, "tests/golden/generate.py", "late_sum").stdout
