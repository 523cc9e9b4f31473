"""Every method of ours keeps the contract. `bench check` runs the same tests on anybody's."""

from __future__ import annotations

import pytest

from benchmark.check import check_method
from benchmark.check.trained import Subjects
from benchmark.registry import METHODS


@pytest.fixture(scope="module")
def subjects():
    """What this process has trained so far, baselines among it."""
    return Subjects(thorough=False)


@pytest.mark.parametrize("name", METHODS.known())
def test_keeps_the_contract(name, subjects):
    results = list(check_method(METHODS.find(name), subjects))
    assert not [result for result in results if result.failed]
    assert sum(result.verdict == "ok" for result in results) > 10


@pytest.mark.full
def test_every_method_can_be_imported_first(loaded_by):
    modules = [METHODS.find(name).source for name in METHODS.known()]
    assert not loaded_by(modules, {"benchmark.check"}, ("torch", "pydantic"))


@pytest.mark.full
@pytest.mark.parametrize("name", METHODS.known())
def test_keeps_the_contract_alone_and_wherever_it_is_stopped(name):
    assert not [result for result in check_method(METHODS.find(name)) if result.failed]
