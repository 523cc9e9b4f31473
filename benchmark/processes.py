"""Read thousands of files in several processes, with the same results as in one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import TypeVar

from benchmark.surroundings import safe_start

Item = TypeVar("Item")
Result = TypeVar("Result")

FEW = 300
"""Items up to which one process is as fast: starting others takes a second."""
CHUNK = 50
"""Items that a process works on at a time."""
MAX_PROCESSES = 4
NEEDED = ["numpy", "scipy.special", "pyarrow.parquet", "pandas", "benchmark.report"]
"""What readers import, and pandas, for which pyarrow asks; loaded once for all processes to come."""


def in_chunks(
    work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], processes: int | None = None
) -> list[Result]:
    """Return the results of `work` on chunks of the items, one after the other in order of the items.

    Args:
        work: a function of a module, or a `partial` of one; what it returns of an item must not depend on the others.
        items: what to work on.
        processes: how many; by default as many as there are processors, up to a few, and one for few items.
    """
    if processes is None:
        processes = min(len(os.sched_getaffinity(0)), MAX_PROCESSES) if len(items) > FEW else 1
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    if processes == 1:
        return list(chain.from_iterable(map(work, chunks)))
    # a fork of this process would inherit locks that its threads hold; a server that never had threads is forked
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(NEEDED)
    with safe_start(), ProcessPoolExecutor(processes, context) as pool:
        return list(chain.from_iterable(pool.map(work, chunks)))
