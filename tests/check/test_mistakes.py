"""Typical mistakes, a plugin each in `mistakes/`: `bench check` says what is wrong, where, and once.

The docstring of a plugin holds the message that it must get; the line that the message must point to ends in `# here`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from benchmark.check import check_plugin
from benchmark.errors import UserError

FOLDER = Path(__file__).with_name("mistakes")
MISTAKES = sorted(path.stem for path in FOLDER.glob("*.py"))
QUICK = {"vector_loss", "modules_in_a_list", "predict_of_a_tensor", "abstract_method", "data_nan"}
"""Those of the quick tier: one of each kind."""
TIERS = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in MISTAKES]


@pytest.mark.parametrize("name", TIERS)
def test_a_mistake_is_told_where_it_is_in_the_terms_of_its_author_and_once(name, monkeypatch):
    monkeypatch.setattr("benchmark.check.methods._imports_alone", lambda plugin: None)
    monkeypatch.chdir(FOLDER)
    path = FOLDER / f"{name}.py"
    source = path.read_text(encoding="utf-8")
    message = " ".join((ast.get_docstring(ast.parse(source)) or "").partition("Says: ")[2].split())
    assert len(message) > 10
    lines = [number for number, line in enumerate(source.splitlines(), 1) if line.endswith("# here")]
    told = failures(str(path))
    assert message in told[0]
    for line in lines:
        assert f"{path.name}:{line}" in told[0]
    assert len(told) == 1, "what follows from the first failure is not told in full"


def failures(path: str) -> list[str]:
    """Return what is said in full of each failed test, with the line, or of a plugin that cannot be loaded."""
    try:
        failed = [result for result in check_plugin(path) if result.failed and not result.detail.startswith("as with ")]
    except UserError as error:
        return [str(problem) for problem in error.problems]
    return [f"{result.where}: {result.name}: {result.detail}" for result in failed]


def test_there_are_thirty_mistakes_of_methods_and_ten_of_data_sets():
    num_datasets = sum(name.startswith("data_") for name in MISTAKES)
    assert (len(MISTAKES) - num_datasets, num_datasets) >= (30, 10)
    assert set(MISTAKES) >= QUICK
