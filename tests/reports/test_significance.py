"""The tests are paired, know the spread over seeds, and agree with hand computations."""

from __future__ import annotations

import json
import time
from math import comb

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark.reports._bootstrap import (
    Resamples,
    average_seeds,
    holm,
    interval,
    mcnemar,
    resamples_for,
    sum_seeds,
    two_sided,
)
from benchmark.reports._marks import paired
from benchmark.reports.significance import SignificanceReport, significance

from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING


@pytest.fixture
def runs(made_up):
    """Write a made-up run whose fused prediction is right where `right` (N,) says so; other rules are all wrong."""

    def write(method, seed, right, ids=None, **options):
        folder = made_up(method, seed, **options)
        right = np.asarray(right, dtype=bool)
        count = len(right)
        logits = np.where(np.stack([right, ~right], axis=1), 1.0, -1.0).astype(np.float32)
        values = pa.array(np.concatenate([logits, -logits]).ravel())
        table = pa.table(
            {
                "rule": ["best_valid"] * count + ["last"] * count,
                "id": list(ids or (f"clip{number:05d}" for number in range(count))) * 2,
                "label": np.zeros(2 * count, dtype=np.int64),
                "fused": pa.FixedSizeListArray.from_arrays(values, 2),
            }
        )
        pq.write_table(table, folder.predictions)
        if (folder.path / "record.json").exists():
            record = json.loads((folder.path / "record.json").read_text())
            record["files"] = {"predictions.parquet": folder.predictions.stat().st_size}
            folder.write("record.json", record)
        return folder

    return write


def draw_right(accuracy, count, seed):
    return np.random.default_rng(seed).random(count) < accuracy


def row(table, pair):
    return dict(zip([column.name for column in table.columns], dict(table.rows)[pair], strict=True))


def test_mcnemar_is_the_binomial_tail_of_the_discordant_samples():
    first = np.array([True] * 8 + [False] * 1 + [True] * 50 + [False] * 20)
    second = np.array([False] * 8 + [True] * 1 + [True] * 50 + [False] * 20)
    by_hand = 2 * (comb(9, 8) + comb(9, 9)) / 2**9  # 8 against 1
    assert mcnemar(first, second) == pytest.approx(by_hand)
    assert mcnemar(second, first) == pytest.approx(by_hand)
    assert mcnemar(first, first) == 1.0
    together = mcnemar(np.stack([first, second, first]), np.stack([second, first, first]))
    assert together == pytest.approx([by_hand, by_hand, 1.0])


@pytest.mark.parametrize("resamples", [1, 2, 3000, 3021])
def test_the_interval_is_that_of_numpy_bit_for_bit(resamples):
    totals = np.random.default_rng(resamples).integers(-500, 900, size=resamples)
    assert interval(totals, 7) == tuple(np.quantile(totals / 7, (0.025, 0.975)))


def test_sums_over_seeds_are_those_of_seeds_drawn_one_by_one():
    values = np.random.default_rng(0).integers(100, size=(6, 50))
    drawn = np.random.default_rng([0, 6]).integers(6, size=(6, 50))
    assert sum_seeds(values).tolist() == [sum(values[drawn[:, place], place]) for place in range(50)]


def test_holm_is_the_hand_computation():
    # sorted: .005 x 4 = .02, .01 x 3 = .03, .03 x 2 = .06, .04 x 1 = .04 raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_two_sided_counts_the_rarer_side_and_is_never_zero():
    assert two_sided(np.array([1.0] * 96 + [-1.0] * 3)) == pytest.approx(2 * 4 / 100)
    assert two_sided(np.array([-1.0] * 96 + [1.0] * 3)) == pytest.approx(2 * 4 / 100)
    assert two_sided(np.ones(99)) == pytest.approx(2 / 100)
    assert two_sided(np.zeros(99)) == 1.0


def test_resampling_has_the_variance_of_the_binomial_and_the_same_draws_for_all():
    right = draw_right(0.7, 400, 0)
    once, again, wrong = Resamples(400, 4000).sums(np.stack([right, right, ~right]))
    assert (once == again).all()
    assert (once + wrong == 400).all()
    assert once.mean() == pytest.approx(right.sum(), abs=0.6)
    assert once.std() == pytest.approx((400 * right.mean() * (1 - right.mean())) ** 0.5, rel=0.05)


def test_sums_of_shares_are_rounded_to_hundredths_and_counts_are_exact():
    resamples = Resamples(3, 40)
    assert set(resamples.sums(np.full((1, 3), 0.001)).ravel()) == {0.0}
    assert set(resamples.sums(np.full((1, 3), 0.004)).ravel()) == {np.float32(0.01)}
    assert set(resamples.sums(np.ones((1, 3), dtype=bool)).ravel()) == {3.0}


@pytest.mark.parametrize(("tests", "resamples"), [(0, 3000), (60, 3000), (61, 3050), (100, 5000)])
def test_there_are_enough_resamples_for_the_number_of_tests(tests, resamples):
    assert resamples_for(tests) == resamples


@pytest.mark.parametrize(("count", "resamples"), [(7, 1), (7, 250), (3, 251), (2, 700)])
def test_every_resample_draws_as_many_samples_as_there_are(count, resamples):
    drawn = Resamples(count, resamples).sums(np.eye(count, dtype=bool))
    assert drawn.shape == (count, resamples)
    assert (drawn.sum(0) == count).all()
    assert resamples == 1 or len(np.unique(drawn, axis=1).T) > 1


def test_seeds_are_resampled_too():
    gaps = np.array([0, 10, 20])[:, None] * np.ones((3, 20000), dtype=np.int64)
    draws = average_seeds(gaps)
    assert draws.mean() == pytest.approx(10, abs=0.2)
    assert draws.std() == pytest.approx(np.std([0, 10, 20]) / 3**0.5, rel=0.03)
    assert (average_seeds(gaps[1:2]) == 10).all()  # a single seed adds no spread


def test_the_interval_agrees_with_a_slow_bootstrap_written_plainly(runs, tmp_path, comparison_of):
    answers = {
        m: [draw_right(a, 200, s + 10 * n) for s in range(4)] for n, (m, a) in enumerate([("a", 0.8), ("b", 0.7)])
    }
    for method, seeds in answers.items():
        for seed, right in enumerate(seeds):
            runs(method, seed, right)
    found = row(significance(*comparison_of(tmp_path)), "a − b")
    generator = np.random.default_rng(5)
    gaps = np.stack(answers["a"]).astype(float) - np.stack(answers["b"])
    plain = []
    for _ in range(4000):
        seeds, samples = generator.integers(4, size=4), generator.integers(200, size=200)
        plain.append(100 * gaps[seeds][:, samples].mean())
    assert found["difference"].mean == pytest.approx(100 * gaps.mean())
    assert (found["low"].mean, found["high"].mean) == pytest.approx(tuple(np.quantile(plain, (0.025, 0.975))), abs=0.6)


def test_the_interval_covers_a_known_difference_about_as_often_as_it_says():
    covered = 0
    for trial in range(100):
        a, b = draw_right(0.8, 300, (trial, 0)), draw_right(0.7, 300, (trial, 1))
        draws = average_seeds(Resamples(300, 500).sums((a.astype(float) - b)[None])) / 300
        low, high = np.quantile(draws, (0.025, 0.975))
        covered += low <= 0.1 <= high
    assert 88 <= covered <= 100  # 95 expected; both bounds are over three standard deviations away or the end


def test_better_equal_and_identical_methods_are_told_apart(runs, tmp_path, comparison_of):
    for seed in range(3):
        runs("best", seed, draw_right(0.9, 500, (0, seed)))
        runs("plain", seed, draw_right(0.7, 500, (1, seed)))
        runs("twin", seed, draw_right(0.7, 500, (1, seed)))
    table = significance(*comparison_of(tmp_path))
    assert [name for name, _ in table.rows] == ["best − plain", "best − twin", "plain − twin"]
    better, same = row(table, "best − plain"), row(table, "plain − twin")
    assert better["low"].mean > 0
    assert better["Holm p"].mean < 0.05
    assert better["p"].mean < better["Holm p"].mean
    assert better["median p"].mean < 0.001
    assert better["seeds < .05"].symbol == "3 of 3"
    assert (same["difference"].mean, same["low"].mean, same["high"].mean) == (0, 0, 0)
    assert (same["p"].mean, same["Holm p"].mean, same["median p"].mean) == (1, 1, 1)
    assert same["seeds < .05"].symbol == "0 of 3"


def test_mcnemar_is_counted_for_each_seed_and_not_pooled(runs, tmp_path, comparison_of):
    same = np.tile([True, False], 30)
    for seed, (only_a, only_b) in enumerate([(8, 1), (7, 2), (10, 0)]):  # p = .039, .180, .002
        runs("a", seed, np.concatenate([same, [True] * only_a, [False] * only_b, [True] * (10 - only_a - only_b)]))
        runs("b", seed, np.concatenate([same, [False] * only_a, [True] * only_b, [True] * (10 - only_a - only_b)]))
    found = row(significance(*comparison_of(tmp_path)), "a − b")
    assert found["seeds < .05"].symbol == "2 of 3"
    assert found["median p"].mean == pytest.approx(20 / 2**9)


def test_pairing_gives_a_narrower_interval_than_independent_errors(runs, tmp_path, comparison_of):
    base = draw_right(0.7, 500, 0)
    better = base.copy()
    better[np.flatnonzero(~base)[:15]] = True
    runs("a", 0, base)
    runs("b", 0, better)
    runs("c", 0, np.random.default_rng(4).permutation(better))
    table = significance(*comparison_of(tmp_path))
    paired, loose = row(table, "a − b"), row(table, "a − c")
    assert paired["difference"].mean == pytest.approx(loose["difference"].mean)
    assert paired["high"].mean < 0 < loose["high"].mean


def test_samples_are_matched_by_id_and_not_by_place(runs, tmp_path, comparison_of):
    right, ids = draw_right(0.7, 100, 0), [f"x{number}" for number in range(100)]
    order = np.random.default_rng(1).permutation(100)
    runs("a", 0, right, ids)
    runs("b", 0, right[order], [ids[at] for at in order])
    assert row(significance(*comparison_of(tmp_path)), "a − b")["median p"].mean == 1.0


def test_only_common_ids_and_common_seeds_count(runs, tmp_path, comparison_of):
    right = draw_right(0.7, 100, 0)
    ids = [f"x{number:03d}" for number in range(101)]
    runs("a", 0, right, ids[:100])
    runs("a", 1, ~right, ids[:100])
    runs("b", 0, right, ids[:100])
    runs("b", 2, ~right[:99], ids[:99])
    table = significance(*comparison_of(tmp_path))
    assert row(table, "a − b")["difference"].values == (0.0,)  # seed 0 alone
    assert any("1 test samples" in note for note in table.notes)
    assert any("With one common seed" in note for note in table.notes)


def test_several_seeds_are_not_said_to_be_one(runs, tmp_path, comparison_of):
    for seed in range(2):
        for method in ("a", "b"):
            runs(method, seed, draw_right(0.7, 50, (seed, ord(method))))
    notes = significance(*comparison_of(tmp_path)).notes
    assert not any("With one common seed" in note for note in notes)


def test_the_interval_is_in_points_to_the_last_digit(runs, tmp_path, comparison_of):
    answers = {m: np.stack([draw_right(0.7, 77, (seed, n)) for seed in range(3)]) for n, m in enumerate("ab")}
    for method, seeds in answers.items():
        for seed, right in enumerate(seeds):
            runs(method, seed, right)
    found = row(significance(*comparison_of(tmp_path)), "a − b")
    gaps = Resamples(77, 3000).sums(answers["a"]) - Resamples(77, 3000).sums(answers["b"])
    low, high = 100 * np.quantile(average_seeds(gaps) / 77, (0.025, 0.975))
    assert (found["low"].mean, found["high"].mean) == pytest.approx((low, high), abs=1e-9)


def test_the_last_digit_of_points_is_a_hundredth_and_no_column_is_ranked(runs, tmp_path, comparison_of):
    for method in ("a", "b"):
        runs(method, 0, draw_right(0.7, 77, ord(method)))
    table = significance(*comparison_of(tmp_path))
    assert [column.digits for column in table.columns[:-1]] == [2, 2, 2, 4, 4, 4]
    assert not any(column.rank for column in table.columns)


def test_a_run_that_was_interrupted_is_missing_and_not_failed(runs, tmp_path, comparison_of):
    runs("a", 0, draw_right(0.7, 20, 0))
    runs("b", 0, draw_right(0.7, 20, 1), state=State.INTERRUPTED)
    assert {cell.symbol for cell in dict(significance(*comparison_of(tmp_path)).rows)["a − b"]} == {MISSING}


def test_missing_failed_and_damaged_runs(runs, made_up, tmp_path, comparison_of):
    runs("good", 0, draw_right(0.7, 50, 0))
    runs("late", 1, draw_right(0.7, 50, 1))  # no seed in common
    runs("bad", 0, draw_right(0.7, 50, 2), state=State.FAILED, cause="NaN")
    made_up("torn", 0)  # its predictions are no parquet
    table = significance(*comparison_of(tmp_path))
    assert {(cell.values, cell.symbol) for cell in dict(table.rows)["good − late"]} == {((), MISSING)}
    assert {(cell.values, cell.symbol) for cell in dict(table.rows)["bad − good"]} == {((), FAILED)}
    assert {(cell.values, cell.symbol) for cell in dict(table.rows)["good − torn"]} == {((), MISSING)}
    assert any("bad, seed 0: NaN" in note for note in table.notes)
    assert any("torn, seed 0, predictions" in note for note in table.notes)


def test_the_rule_of_the_comparison_is_read(runs, tmp_path, comparison_of):
    runs("a", 0, draw_right(0.9, 200, 0), selection="last")
    (comparison,) = comparison_of(tmp_path)
    assert paired(comparison).right["a"][0].mean() == pytest.approx(1 - draw_right(0.9, 200, 0).mean())


def test_no_pair_is_out_of_reach_of_holm(runs, tmp_path, comparison_of):
    for number in range(12):  # 66 pairs: with 2000 resamples no Holm p could be below 0.065
        runs(f"m{number:02d}", 0, draw_right(0.05 + 0.08 * number, 400, number))
    assert row(significance(*comparison_of(tmp_path)), "m00 − m11")["Holm p"].mean <= 0.04


def test_the_order_of_records_changes_no_byte(runs, tmp_path, comparison_of):
    for method in ("a", "b", "c"):
        for seed in range(3):
            runs(method, seed, draw_right(0.7, 100, (seed, ord(method))))
    built = [list(SignificanceReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2, 3)]
    assert built[0] == built[1] == built[2]


def test_a_large_comparison_takes_seconds(runs, tmp_path, comparison_of):
    for number in range(12):
        for seed in range(5):
            runs(f"m{number:02d}", seed, draw_right(0.7, 2500, (number, seed)))
    comparisons = comparison_of(tmp_path)
    start = time.process_time()
    significance(*comparisons)
    assert time.process_time() - start < 30  # takes about 2; a loop over resamples takes minutes
