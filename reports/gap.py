"""Gap: how far apart the modalities' training losses are over epochs, and how fast the gap closes."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import OptimizeWarning, curve_fit

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.table import FAILED, MISSING, Cell, Column, Table

NO_FIT, FEW = "no fit", "few"
"""Why there is no C and c: the least squares did not converge, or there are fewer than three epochs."""
MIN_EPOCHS = 3
"""Two parameters go through any two points."""
PANELS = 4
"""Panels in a row of the figure."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Gap:
    """The gap of one run, epoch by epoch."""

    epochs: Array
    """(E,), from 1."""
    values: Array
    """G (E,), in nats."""


@dataclass(frozen=True)
class Fit:
    """G ~ C / (1 + c T) by least squares."""

    start: float
    """C, in nats."""
    rate: float
    """c, per epoch."""
    r2: float | None
    """None where G never changes, as there is nothing to explain."""

    def curve(self, epochs: Array) -> Array:
        return closing(epochs, self.start, self.rate)


class GapReport(Report):
    about = "gap between the modalities' training losses over epochs, with a hyperbola fitted"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for comparison in comparisons:
            stem = f"gap-{slug(comparison.title)}"
            yield from render(convergence(comparison), stem)
            if any(gaps(comparison).values()):
                # a fixed salt and no date: the same records give the same bytes
                with matplotlib.rc_context({"svg.hashsalt": stem}):
                    figure = draw(comparison)
                    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
                        stream = io.BytesIO()
                        figure.savefig(stream, format=suffix, dpi=150, metadata=metadata)
                        yield Artifact(f"{stem}.{suffix}", stream.getvalue())

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [convergence(comparison) for comparison in comparisons]


def read_gap(run: RunView) -> Gap | None:
    """Return max - min over modalities of the logged loss; None for fewer than two modalities or an unfinished run."""
    if not run.record:
        return None
    keys = [f"loss/{modality}" for modality in run.record["modalities"]]
    lines = [(line["epoch"] + 1, line.get("train", {})) for line in run.folder.read_history()]
    logged = [key for key in keys if any(key in train for _, train in lines)]
    # an epoch that trained only some modalities has no gap
    whole = [(epoch, [train[key] for key in logged]) for epoch, train in lines if all(key in train for key in logged)]
    if len(logged) < 2 or not whole:
        return None
    losses = np.array([values for _, values in whole], dtype=float)
    return Gap(np.array([epoch for epoch, _ in whole], dtype=float), losses.max(1) - losses.min(1))


def gaps(comparison: Comparison) -> dict[str, dict[int, Gap]]:
    """Return {method: {seed: gap}}, without the methods whose finished runs have none."""
    found = {}
    for method in comparison.methods:
        runs = comparison.of(method)
        of_seed = {run.seed: gap for run in runs if (gap := read_gap(run)) is not None}
        if of_seed or not any(run.record for run in runs):
            found[method] = of_seed
    return found


def closing(epochs: Array, start: float, rate: float) -> Array:
    """Return C / (1 + c T) at the epochs T (E,)."""
    return start / (1 + rate * epochs)


def fit(gap: Gap) -> Fit | str:
    """Fit C, c >= 0, or return the symbol for why not."""
    if len(gap.values) < MIN_EPOCHS:
        return FEW
    # 1 / G = 1 / C + (c / C) T is a line: it gives a start that is exact for an exact hyperbola
    slope, intercept = np.polyfit(gap.epochs, 1 / np.maximum(gap.values, 1e-12), 1)
    straight = slope >= 0 and intercept > 0
    guess = (1 / intercept, slope / intercept) if straight else (max(float(gap.values[0]), 1e-12), 0.1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)  # about the covariance, which nobody asks for
            (start, rate), _ = curve_fit(closing, gap.epochs, gap.values, guess, bounds=(0, math.inf), max_nfev=2000)
    except (RuntimeError, ValueError):
        return NO_FIT
    total = float(((gap.values - gap.values.mean()) ** 2).sum())
    rest = float(((gap.values - closing(gap.epochs, start, rate)) ** 2).sum())
    return Fit(float(start), float(rate), 1 - rest / total if total > 1e-20 else None)
