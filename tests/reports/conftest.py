"""Comparisons of the made-up runs, found in any order."""

from __future__ import annotations

import random

import pytest

from benchmark.records import scan
from benchmark.report import compare


@pytest.fixture
def comparison_of():
    """Return the comparisons under a folder: `comparison_of(tmp_path, shuffle=1)` finds its runs in another order."""

    def found(tmp_path, shuffle=None):
        runs = list(scan(tmp_path / "runs"))
        if shuffle is not None:
            random.Random(shuffle).shuffle(runs)
        return compare(runs)[0]

    return found
