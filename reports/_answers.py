"""What each finished run makes of every test sample, in numbers whose mean over samples is its score.

See `benchmark.shares` for what they are. Shares of single modalities are those of the headline metric alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmark.metrics import FUSED, HEADLINE, METRICS
from benchmark.processes import in_chunks
from benchmark.records import Table, read_table
from benchmark.report import Comparison

Score = tuple[str, str, str]
"""Selection rule, head and metric."""


Share = NDArray[np.float32] | NDArray[np.bool_]
"""(N,); truth values for accuracy."""


@dataclass(frozen=True)
class Answers:
    """The shares of one run, {score: (N,)}, in order of sample id."""

    ids: list[str]
    shares: dict[Score, Share]


@dataclass(frozen=True)
class Layout:
    """Which row of a file holds which sample: nearly all runs of a comparison agree."""

    keys: pa.Table
    """The columns rule and id that it is made from."""
    rows: Mapping[str, NDArray[np.intp]]
    """{rule: its rows, in order of sample id}"""
    ids: list[str]


Read = tuple[Answers | None, str]
"""A run's answers, or why there are none."""


def read_all(comparison: Comparison) -> tuple[dict[tuple[str, int], Answers], list[str]]:
    """Return {(method, seed): answers} on the samples that all runs have, and in words what could not be used."""
    runs = {(run.method, run.seed): run for run in comparison.runs if run.record}
    files = [run.folder.predictions for run in runs.values()]
    found, notes = {}, []
    for (method, seed), (answers, cause) in zip(runs, _read(files, comparison.selection), strict=True):
        if answers is None:
            notes.append(f"Not counted: {method}, seed {seed}, predictions ({cause}).")
        else:
            found[method, seed] = answers
    samples = {tuple(answers.ids) for answers in found.values()}
    common = sorted(set.intersection(*map(set, samples))) if samples else []
    if dropped := len(set().union(*samples)) - len(common):
        notes.append(f"{dropped} test samples that not every run has are left out.")
        kept = [runs[key].folder.predictions for key in found] if common else []
        again = _read(kept, comparison.selection, common)
        found = {key: answers for key, (answers, _) in zip(found, again, strict=False) if answers is not None}
    return found, notes


def _read(files: Sequence[Path], selection: str, wanted: Sequence[str] | None = None) -> list[Read]:
    return in_chunks(partial(read_chunk, selection=selection, wanted=wanted), files)


def read_chunk(files: Sequence[Path], selection: str, wanted: Sequence[str] | None) -> list[Read]:
    """Read the predictions of several runs; what one run has wrong is said of it.

    Args:
        files: a file of each run.
        selection: the rule that must be there.
        wanted: ids of the samples to keep; all by default.
    """
    found: list[Read] = []
    layout = None
    for path in files:
        try:
            table = read_table(path)
            layout = layout_of(table.keys, selection, wanted, layout)
            found.append((answers_of(table, layout), ""))
        except (OSError, ValueError) as error:
            found.append((None, str(error).splitlines()[0] if str(error) else type(error).__name__))
    return found


def layout_of(keys: pa.Table, selection: str, wanted: Sequence[str] | None, last: Layout | None) -> Layout:
    """Return the layout of a file with these rules and ids: the last one again where they are the same.

    Raises:
        ValueError: when the rule is not there, or not every rule has each id once.
    """
    if last is not None and keys.equals(last.keys):
        return last
    rules, ids = (keys[name].to_numpy() for name in ("rule", "id"))
    samples = sorted(set(ids[rules == selection]) if wanted is None else wanted)
    if not samples:
        raise ValueError(f"expected fused logits of rule {selection}, got none")
    found = {}
    for rule in sorted(set(rules)):
        rows = np.flatnonzero(rules == rule)
        rows = rows[np.argsort(ids[rows])]
        if wanted is not None:
            rows = rows[np.isin(ids[rows], samples)]
        if ids[rows].tolist() != samples:
            raise ValueError(f"expected each id once, and the same for every rule; not so for {rule}")
        found[rule] = rows
    return Layout(keys, found, samples)


def answers_of(table: Table, layout: Layout) -> Answers:
    """Return what a run made of the samples of its layout.

    Raises:
        ValueError: when there are no fused logits, or some are not finite.
    """
    labels, logits = table.labels, table.logits
    if FUSED not in logits:
        raise ValueError("expected fused logits, got none")
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise ValueError("expected finite logits")
    shares: dict[Score, Share] = {}
    for head, values in logits.items():
        for metric in METRICS.values():
            if metric.shares is not None and (head == FUSED or metric is HEADLINE):
                for rule, rows in layout.rows.items():
                    shares[rule, head, metric.name] = _small(metric.shares(values[rows], labels[rows]))
    return Answers(layout.ids, shares)


def _small(found: NDArray[Any]) -> Share:
    """Return shares in the least memory that keeps them: truth values, or single precision."""
    share: Share = found if found.dtype == bool else found.astype(np.float32)
    return share
