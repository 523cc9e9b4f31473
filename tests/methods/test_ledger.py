"""The ledger: every method says what paper, released code and ours do, and its tests are where it says."""

from __future__ import annotations

import pytest

from benchmark.registry import METHODS
from benchmark.tables.ledger import account, rows


@pytest.mark.parametrize("name", sorted(METHODS.known()))
def test_every_method_accounts_for_itself_and_has_the_tests_that_its_row_names(name, repo):
    plugin = METHODS.find(name)
    parts = account(plugin.load())
    assert list(parts) == ["Paper", "Released code", "Ours"]
    assert all(text.endswith(".") for text in parts.values())
    assert plugin.load().ledger is not None
    _, *files = rows([plugin])[0].tests.split(", ")
    assert files
    assert all((repo / file).is_file() for file in files)
