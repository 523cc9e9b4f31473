"""Gap: how far apart the modalities' training losses are over epochs, and how fast the gap closes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from benchmark.records import RunView, State
from benchmark.report import Artifact, Comparison, Report, render, render_figure
from benchmark.tables.table import FAILED, MISSING, Cell, Column, Table

from ._figures import LONGEST, PALETTE
from ._histories import History, histories

NO_FIT, FEW = "no fit", "few"
"""Why there is no C and c: the larger c the better, without end, or there are fewer than three epochs."""
MIN_EPOCHS = 3
"""Two parameters go through any two points."""
RATES = np.geomspace(1e-4, 1e4, 81)
"""Where the search for c starts, per epoch."""
MAX_RATE = 1e6
"""Above it only the ratio C / c matters: the curve is that of 1 / T."""
STEPS = 8
"""Parts into which the search divides an interval, to go on in the two beside the best point."""
ROUNDS = 16
"""How often it does: each time the interval is a quarter of what it was."""
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
            stem = f"gap-{comparison.stem}"
            yield from render(convergence(comparison), stem)
            if any(comparison.once(gaps).values()):
                yield from render_figure(draw(comparison), stem)

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [convergence(comparison) for comparison in comparisons]


def read_gap(run: RunView, history: History | None) -> Gap | None:
    """Return max - min over modalities of the logged loss; None for fewer than two modalities or an unfinished run."""
    if not run.record or history is None:
        return None
    columns = [history.column(f"train/loss/{modality}") for modality in run.record.modalities]
    logged = [column for column in columns if np.isfinite(column).any()]
    if len(logged) < 2:
        return None
    losses = np.array(logged)
    whole = np.isfinite(losses).all(0)  # an epoch that trained only some modalities has no gap
    return Gap(history.epochs[whole], np.ptp(losses[:, whole], axis=0)) if whole.any() else None


def gaps(comparison: Comparison) -> dict[str, dict[int, Gap]]:
    """Return {method: {seed: gap}}, without the methods whose finished runs have none; ask by `once`."""
    found, logs = {}, comparison.once(histories)
    for method in comparison.methods:
        runs = comparison.of(method)
        of_seed = {run.seed: gap for run in runs if (gap := read_gap(run, logs.get(run.folder.path)))}
        if of_seed or not any(run.record for run in runs):
            found[method] = of_seed
    return found


def closing(epochs: Array, start: float, rate: float) -> Array:
    """Return C / (1 + c T) at the epochs T (E,)."""
    return start / (1 + rate * epochs)


def fits(comparison: Comparison) -> dict[str, dict[int, Fit | str]]:
    """Return {method: {seed: fit or why there is none}}; ask by `comparison.once(fits)`."""
    found = comparison.once(gaps)
    results = iter(fit([gap for of_seed in found.values() for gap in of_seed.values()]))
    return {method: {seed: next(results) for seed in of_seed} for method, of_seed in found.items()}


def fit(curves: Sequence[Gap]) -> list[Fit | str]:
    """Fit C, c >= 0 to each gap by least squares, or return the symbol for why not.

    C / (1 + c T) is linear in C, so only one number has to be searched for. With u = c / (1 + c) the curve is
    proportional to 1 / (1 + u (T - 1)), and all that c can be lies in [0, 1). The search looks at u for all gaps at a
    time: on a grid, then closer and closer around the best point.
    """
    long = [gap for gap in curves if len(gap.values) >= MIN_EPOCHS]
    if not long:
        return [FEW] * len(curves)
    epochs = _padded([gap.epochs for gap in long], 1.0)  # (R, E)
    values = _padded([gap.values for gap in long], 0.0)
    weights = _padded([np.ones(len(gap.values)) for gap in long], 0.0)

    def errors(u: Array) -> Array:
        """Return the sum of squares (R,) that the best C leaves."""
        shapes = weights / (1 + u[:, None] * (epochs - 1))
        heights = (values * shapes).sum(1) / (shapes**2).sum(1)
        rest: Array = ((values - heights[:, None] * shapes) ** 2).sum(1)
        return rest

    results = iter(map(_fit_at, long, _search(errors, len(long))))
    return [next(results) if len(gap.values) >= MIN_EPOCHS else FEW for gap in curves]


def _padded(rows: Sequence[Array], fill: float) -> Array:
    """Return rows of any lengths as one array (R, E)."""
    padded: Array = np.array(list(zip_longest(*rows, fillvalue=fill)), dtype=float).T
    return padded


def _search(errors: Callable[[Array], Array], count: int) -> Array:
    """Return where in [0, 1] each of `count` functions is smallest (R,): the first such point."""
    points = np.concatenate([[0.0], RATES / (1 + RATES), [1.0]])[:, None].repeat(count, axis=1)  # (P, R)
    rows = np.arange(count)
    for _ in range(1 + ROUNDS):
        best = np.array([errors(point) for point in points]).argmin(0)
        low, high = (points[np.clip(best + step, 0, len(points) - 1), rows] for step in (-1, 1))
        found: Array = points[best, rows]
        points = np.linspace(low, high, STEPS + 1)
    return found


def _fit_at(gap: Gap, u: float) -> Fit | str:
    """Return the fit with c = u / (1 - u)."""
    rate = float(u / (1 - u)) if u < 1 else math.inf
    if rate > MAX_RATE:
        return NO_FIT
    shape = closing(gap.epochs, 1.0, rate)
    start = float(gap.values @ shape / (shape @ shape))
    scale = float(gap.values.max()) or 1.0
    total = float((((gap.values - gap.values.mean()) / scale) ** 2).sum())
    rest = float((((gap.values - start * shape) / scale) ** 2).sum())
    # C alone, with c = 0, already explains nothing; below that there is only rounding
    return Fit(start, rate, max(0.0, 1 - rest / total) if total > 1e-20 else None)


def convergence(comparison: Comparison) -> Table:
    """Return a row for each method; the gap in nats, mean ± std over seeds of the fits of single runs."""
    columns = [Column(name, "G (nats)", digits=3, rank=False) for name in ("first", "largest", "last")]
    columns += [Column(name, "C / (1 + c T)", digits=3, rank=False) for name in ("C", "c", "R²")]
    rows, notes = [], []
    shown = comparison.once(gaps)
    for method, of_seed in shown.items():
        runs = comparison.of(method)
        symbol = FAILED if any(run.status.state is State.FAILED for run in runs) else MISSING
        fitted = comparison.once(fits)[method]
        sound = [found for found in fitted.values() if isinstance(found, Fit)]
        why = next((found for found in fitted.values() if isinstance(found, str)), symbol)
        for reason in (NO_FIT, FEW):
            if seeds := [str(seed) for seed, found in fitted.items() if found == reason]:
                notes.append(f"{reason}: {method}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}.")
        values = [gap.values for gap in of_seed.values()]
        cells = [Cell(tuple(float(v[0]) for v in values), symbol), Cell(tuple(float(v.max()) for v in values), symbol)]
        cells += [Cell(tuple(float(v[-1]) for v in values), symbol), Cell(tuple(found.start for found in sound), why)]
        cells.append(Cell(tuple(found.rate for found in sound), why))
        cells.append(Cell(tuple(found.r2 for found in sound if found.r2 is not None), MISSING if sound else why))
        rows.append((method, cells))
    caption = f"{comparison.title}: gap of training losses, mean ± std over seeds"
    return Table(caption, columns, rows, [*about(comparison, shown), *notes])


def about(comparison: Comparison, shown: Mapping[str, object]) -> list[str]:
    """Return what a reader must know: definitions, who is left out, missing and failed runs."""
    lines = ["G(T): largest minus smallest training cross-entropy of the modalities' own logits in epoch T = 1, 2, ..."]
    lines.append(
        "C (nats) and c (per epoch), both at least 0, by least squares for each run; c = 0: it does not close."
    )
    lines.append("R² is low too where G rises before it falls, as the curve only falls: compare G first and largest.")
    if left := [method for method in comparison.methods if method not in shown]:
        lines.append(f"Left out, as fewer than two modalities log a loss: {', '.join(left)}.")
    lines += comparison.left_out()
    lines.append(
        f"— not run or not defined, ✗ failed, {FEW}: under {MIN_EPOCHS} epochs, {NO_FIT}: falls faster than 1 / T."
    )
    return lines


def over_seeds(of_seed: Mapping[int, Gap]) -> tuple[Array, Array]:
    """Return the epochs (E,) that all seeds have and the gaps (seeds, E) at them."""
    epochs = sorted(set.intersection(*(set(gap.epochs) for gap in of_seed.values())))
    return np.array(epochs), np.array([gap.values[np.isin(gap.epochs, epochs)] for gap in of_seed.values()])


def draw(comparison: Comparison) -> Figure:
    """Draw a panel for each method on shared axes, the other methods' means in grey behind it."""
    found = {method: of_seed for method, of_seed in comparison.once(gaps).items() if of_seed}
    curves = {method: over_seeds(of_seed) for method, of_seed in found.items()}
    wide = min(len(curves), PANELS)
    tall = math.ceil(len(curves) / wide)
    figure = Figure(figsize=(3.1 * wide + 0.4, 2.6 * tall + 0.9), layout="constrained")
    panels = figure.subplots(tall, wide, sharex=True, sharey=True, squeeze=False)
    for position, panel in enumerate(panels.flat):
        if position >= len(curves):
            panel.set_axis_off()
            continue
        method = list(curves)[position]
        for other, (epochs, values) in curves.items():
            if other != method:
                panel.plot(epochs, values.mean(0), color="0.82", linewidth=0.8, zorder=1)
        fitted = [one for one in comparison.once(fits)[method].values() if isinstance(one, Fit)]
        scores = [one.r2 for one in fitted if one.r2 is not None]
        quality = f"R² {np.mean(scores):.2f}" if scores else "no R²"
        _panel(panel, *curves[method], fitted)
        name = textwrap.fill(method.replace(",", ", "), 32)
        panel.set_title(f"{name}\n{quality}", fontsize=10)
        panel.set_yscale("log", nonpositive="mask")
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if position + wide >= len(curves):
            panel.set_xlabel("epoch T")
            panel.tick_params(labelbottom=True)  # a shared axis hides them where the grid goes on below
    figure.supylabel("G: gap of training losses (nats)", fontsize=10)
    figure.suptitle("\n".join(textwrap.wrap(comparison.title, LONGEST)))
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _panel(panel: Axes, epochs: Array, values: Array, fits: Sequence[Fit]) -> None:
    panel.plot(epochs, values.mean(0), color=PALETTE[0], linewidth=1.6, label="mean over seeds", zorder=3)
    panel.fill_between(epochs, values.min(0), values.max(0), color=PALETTE[0], alpha=0.2, linewidth=0, label="range")
    # drawn without a fit too, so that the first panel's legend has every entry
    curve = np.mean([one.curve(epochs) for one in fits], axis=0) if fits else np.full(len(epochs), np.nan)
    panel.plot(
        epochs,
        curve,
        color=PALETTE[1],
        linestyle="--",
        linewidth=1.2,
        label="fitted C / (1 + c T), mean over seeds",
        zorder=4,
    )
