"""Contract tests that the core runs on every plugin, ours or a user's: `bench check NAME|PATH`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmark.check.datasets import check_dataset
from benchmark.check.methods import check_method
from benchmark.check.verdict import Result
from benchmark.errors import UserError
from benchmark.registry import DATASETS, METHODS, Incomplete

__all__ = ["Result", "check_dataset", "check_method", "check_plugin"]


def check_plugin(name: str, data_root: Path | None = None) -> Iterator[Result]:
    """Check a method or data set, by name or path, and yield a result for each test.

    Raises:
        UserError: when there is no such plugin.
    """
    bare = name.partition("[")[0]
    if bare in DATASETS.known():
        yield from check_dataset(name, data_root)
    elif bare in METHODS.known():
        yield from check_method(METHODS.find(bare))
    else:
        plugin = METHODS.find(name)
        try:
            plugin.load()
        except UserError as not_a_method:
            try:
                DATASETS.find(name).load()
            except Incomplete:
                raise
            except UserError:
                raise not_a_method from None
            yield from check_dataset(name, data_root)
        else:
            yield from check_method(plugin)
