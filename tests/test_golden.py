"""No number changes unless its version is raised: golden histories of every method and data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
@pytest.mark.parametrize("name", sorted(set(METHODS.known()) - {"concat"}))
def test_the_numbers_of_a_method_on_real_data_are_those_of_its_version(golden, check, name):
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
