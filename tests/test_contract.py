"""Every method of ours keeps the contract. `bench check` runs the same tests on anybody's."""

from __future__ import annotations

import pytest

from benchmark.check import check_method
from benchmark.registry import METHODS


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS.known())
def test_keeps_the_contract(name):
    results = list(check_method(METHODS.find(name)))
    assert not [result for result in results if result.failed]
    assert sum(result.verdict == "ok" for result in results) > 10
