"""The gap is the spread of the modalities' losses, and its fit is the hyperbola that made it."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark.reports.gap import FEW, NO_FIT, Fit, Gap, GapReport, closing, convergence, draw, fit, gaps
from scipy.optimize import curve_fit

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def runs(made_up):
    """Write a made-up run with these losses: {"audio": [epoch 1, epoch 2, ...], ...}."""

    def write(method, seed, losses, **options):
        folder = made_up(method, seed, **options)
        folder.cut_history(0)
        for epoch in range(max(map(len, losses.values()), default=0)):
            train = {f"loss/{m}": float(curve[epoch]) for m, curve in losses.items() if curve[epoch] is not None}
            folder.append_history({"epoch": epoch, "train": {"loss": 9.0, **train}})
        return folder

    return write


def hyperbola(start, rate, epochs=25):
    return start / (1 + rate * np.arange(1, epochs + 1))


def gap_of(values):
    return Gap(np.arange(1.0, len(values) + 1), np.asarray(values, dtype=float))


def fit_one(values):
    return fit([gap_of(values)])[0]


@pytest.mark.parametrize(("start", "rate"), [(2.0, 0.3), (5e-4, 0.01), (40.0, 7.0)])
def test_the_fit_recovers_an_exact_hyperbola(start, rate):
    found = fit_one(hyperbola(start, rate))
    assert isinstance(found, Fit)
    assert (found.start, found.rate, found.r2) == pytest.approx((start, rate, 1.0), rel=1e-4)


def test_the_fit_has_the_least_squares_of_a_dense_grid():
    epochs = np.arange(1, 31)
    values = hyperbola(1.0, 0.4, 30) * (1 + 0.3 * np.sin(epochs))
    found = fit_one(values)
    rates = np.linspace(0, 3, 3001)[:, None]
    shapes = 1 / (1 + rates * epochs)
    starts = (shapes @ values / (shapes**2).sum(1))[:, None]  # C is linear: its optimum for each c is exact
    least = ((values - starts * shapes) ** 2).sum(1)
    assert isinstance(found, Fit)
    assert found.rate == pytest.approx(float(rates[least.argmin(), 0]), abs=2e-3)
    assert found.r2 == pytest.approx(1 - least.min() / ((values - values.mean()) ** 2).sum(), abs=1e-6)


def test_a_gap_that_grows_has_no_rate_and_explains_nothing():
    found = fit_one(np.linspace(0.1, 1, 20))
    assert isinstance(found, Fit)
    assert (found.rate, found.r2) == pytest.approx((0.0, 0.0), abs=1e-6)
    assert f"{found.r2:.3f}" == "0.000"  # not -0.000


def test_a_constant_gap_has_no_r2():
    found = fit_one([0.5] * 10)
    assert isinstance(found, Fit)
    assert found.start == pytest.approx(0.5)
    assert found.r2 is None


def test_two_epochs_are_too_few_and_a_gap_that_falls_faster_than_any_hyperbola_has_no_fit():
    assert fit_one([1.0, 0.5]) == FEW
    assert fit_one([1.0, 0.1, 0.01]) == NO_FIT  # 1 / T, the limit of large c, is still too slow


def test_the_fit_agrees_with_an_optimiser_of_both_numbers():
    generator = np.random.default_rng(0)
    curves = []
    for length in generator.integers(5, 60, size=40):
        epochs = np.flatnonzero(generator.random(length) < 0.8) + 1.0  # with holes, and not from 1
        exact = generator.uniform(0.1, 5) / (1 + 10 ** generator.uniform(-3, 0.5) * epochs)
        curves.append(Gap(epochs, exact * generator.uniform(0.8, 1.2, len(epochs))))
    fitted = [(gap, one) for gap, one in zip(curves, fit(curves), strict=True) if isinstance(one, Fit)]
    assert len(fitted) > 30
    for gap, found in fitted:
        options = {"bounds": (0, np.inf), "ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14, "max_nfev": 5000}
        (start, rate), _ = curve_fit(closing, gap.epochs, gap.values, (found.start * 1.1, found.rate * 0.9), **options)
        assert (found.start, found.rate) == pytest.approx((start, rate), rel=1e-5, abs=1e-7)


def test_gaps_are_fitted_alone_or_together_alike():
    curves = [gap_of(hyperbola(1.0, rate, length)) for rate, length in ((0.1, 5), (0.5, 30), (0.0, 12), (0.3, 2))]
    assert fit(curves) == [fit([gap])[0] for gap in curves]


def test_the_gap_is_the_spread_of_the_losses_of_an_epoch(runs, tmp_path, comparison_of):
    runs("two", 0, {"audio": [2.0, 1.0, 0.5], "video": [1.5, 1.75, 0.5]})
    gap = gaps(*comparison_of(tmp_path))["two"][0]
    assert gap.epochs.tolist() == [1, 2, 3]
    assert gap.values.tolist() == [0.5, 0.75, 0.0]


def test_an_epoch_that_trained_one_modality_has_no_gap(runs, tmp_path, comparison_of):
    runs("turns", 0, {"audio": [2.0, None, 0.5, 0.4], "video": [1.0, 1.5, None, 0.5]})
    gap = gaps(*comparison_of(tmp_path))["turns"][0]
    assert gap.epochs.tolist() == [1, 4]
    assert gap.values == pytest.approx([1.0, 0.1])


def test_a_method_without_two_losses_is_left_out_and_named(runs, tmp_path, comparison_of):
    runs("both", 0, {"audio": [2.0, 1.0], "video": [1.5, 1.75]})
    runs("alone", 0, {"audio": [2.0, 1.0]})
    table = convergence(*comparison_of(tmp_path))
    assert [name for name, _ in table.rows] == ["both"]
    assert any("Left out" in note and "alone" in note and "both" not in note for note in table.notes)


def test_the_table_has_mean_and_spread_over_seeds(runs, tmp_path, comparison_of):
    for seed, start in enumerate((1.0, 3.0)):
        gap = hyperbola(start, 0.5)
        runs("m", seed, {"audio": gap + 1, "video": np.ones_like(gap)})
    cells = dict(convergence(*comparison_of(tmp_path)).rows)["m"]
    means = [cell.mean for cell in cells]
    assert means == pytest.approx([2 / 1.5, 2 / 1.5, 2 / 13.5, 2.0, 0.5, 1.0], rel=1e-4)
    assert cells[3].std == pytest.approx(2**0.5, rel=1e-4)


def test_failed_unfinished_and_short_runs_are_told_apart(runs, tmp_path, comparison_of):
    losses = {"audio": [2.0, 1.2, 1.0, 0.8], "video": [1.5, 0.75, 0.7, 0.5]}
    runs("failed", 0, losses, state=State.FAILED, cause="NaN")
    runs("waiting", 0, losses, state=State.INTERRUPTED)
    for seed in range(2):
        runs("short", seed, {m: curve[:2] for m, curve in losses.items()})
    runs("whole", 0, losses)
    table = convergence(*comparison_of(tmp_path))
    rows = dict(table.rows)
    assert {(cell.values, cell.symbol) for cell in rows["failed"]} == {((), FAILED)}
    assert {(cell.values, cell.symbol) for cell in rows["waiting"]} == {((), MISSING)}
    assert [bool(cell.values) for cell in rows["short"]] == [True] * 3 + [False] * 3
    assert {cell.symbol for cell in rows["short"][3:]} == {FEW}
    assert all(cell.values for cell in rows["whole"])
    assert f"{FEW}: short, seeds 0, 1." in table.notes
    assert any("failed, seed 0: NaN" in note for note in table.notes)


def test_the_figure_shows_each_method_with_its_fit(runs, tmp_path, comparison_of):
    for method in ("a", "b", "c", "d", "e"):
        for seed in range(2):
            gap = hyperbola(1 + seed, 0.5, 6)
            runs(method, seed, {"audio": gap + 1, "video": np.ones_like(gap)})
    figure = draw(*comparison_of(tmp_path))
    panels = [panel for panel in figure.axes if panel.axison]
    assert [panel.get_title().split("\n")[0] for panel in panels] == ["a", "b", "c", "d", "e"]
    for panel in panels:
        lines = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in panel.lines}
        measured = lines["mean over seeds"]
        assert measured == pytest.approx(hyperbola(1.5, 0.5, 6))
        dashed = [values for label, values in lines.items() if label.startswith("fitted")]
        assert dashed[0] == pytest.approx(measured, rel=1e-4)


def test_a_folder_without_gaps_gives_a_table_and_no_figure(runs, tmp_path, comparison_of):
    runs("alone", 0, {"audio": [2.0, 1.0]})
    names = [artifact.name for artifact in GapReport().build(comparison_of(tmp_path))]
    assert sorted(name.rsplit(".")[-1] for name in names) == ["csv", "md", "tex"]


@pytest.mark.full
def test_the_order_of_records_changes_no_byte(runs, tmp_path, comparison_of):
    for method in ("a", "b"):
        for seed in range(3):
            gap = hyperbola(1 + seed, 0.5, 5) + 0.1 * np.sin(np.arange(5))
            runs(method, seed, {"audio": gap + 1, "video": np.ones_like(gap)})
    built = [list(GapReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2)]
    assert [artifact.name for artifact in built[0]] == [artifact.name for artifact in built[1]]
    assert built[0] == built[1]
    assert {artifact.name.rsplit(".")[-1] for artifact in built[0]} == {"tex", "md", "csv", "png", "svg", "pdf"}
