"""Marks agree with a bootstrap written plainly here, and cells without a value say why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from benchmark.reports._marks import paired, place
from benchmark.reports.comparison import ComparisonReport, fused, summary, unimodal

from benchmark.metrics import in_tables
from benchmark.records import State
from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED, Mark

BEST, SECOND, NONE = Mark.BEST, Mark.SECOND, Mark.NONE


def logits_of(right, num_classes=2):
    """Logits (N, K) for labels 0 that are right where `right` (N,) says so."""
    logits = np.zeros((len(right), num_classes))
    logits[np.arange(len(right)), np.where(right, 0, 1)] = 1.0
    return logits


@pytest.fixture
def runs(answered):
    """Write a run whose fused prediction is right where `right` (N,) says so."""

    def write(method, seed, right, **options):
        return answered(method, seed, {"fused": logits_of(right)}, np.zeros(len(right), dtype=int), **options)

    return write


def right(accuracy, count, *seed):
    return np.random.default_rng(seed).random(count) < accuracy


def marks(table, name="acc"):
    """Return {method: mark} of the first column of that name."""
    position = [column.name for column in table.columns].index(name)
    return {method: row[position].mark for method, row in table.rows}


# --- the independent computation -----------------------------------------------------------------------------------


def plain_p(first, second, generator, resamples=1500):
    """Resample seeds and samples of two methods' answers (S, N), one resample at a time."""
    gaps = first.astype(float) - second
    means = []
    for _ in range(resamples):
        seeds, samples = (
            generator.integers(len(gaps), size=len(gaps)),
            generator.integers(gaps.shape[1], size=gaps.shape[1]),
        )
        means.append(gaps[np.ix_(seeds, samples)].mean())
    below, above = np.mean(np.array(means) <= 0), np.mean(np.array(means) >= 0)
    return min(1.0, 2 * min(below, above))


def plain_holm(ps):
    """Adjust {name: p} by the definition: the largest of (m - rank) p over all smaller ones."""
    order = sorted(ps.values())
    scaled = [min(1.0, (len(order) - rank) * p) for rank, p in enumerate(order)]
    return {name: max(scaled[: order.index(p) + 1]) for name, p in ps.items()}


def plain_marks(answers, generator):
    """Return {method: mark} and every corrected p that decided one, from {method: (S, N)}."""
    rest, found, decisive = dict(answers), {}, []
    for mark in (BEST, SECOND):
        if rest:
            leader = max(rest, key=lambda method: rest[method].mean())
            ps = plain_holm({m: plain_p(rest[leader], rest[m], generator) for m in rest if m != leader})
            decisive += ps.values()
            found |= {m: mark for m in rest if m == leader or ps[m] >= 0.05}
            rest = {m: values for m, values in rest.items() if m not in found}
    return {method: found.get(method, NONE) for method in answers}, decisive


CLEAR = (100, 102, 103, 104, 105, 106, 107, 108)
"""Seeds of sweeps in which no p is near 0.05, where one bootstrap may say yes and another no."""


@pytest.mark.parametrize("case", CLEAR)
def test_marks_agree_with_a_plain_bootstrap(runs, tmp_path, comparison_of, case):
    generator = np.random.default_rng(case)
    levels = generator.choice([0.5, 0.6, 0.7, 0.72, 0.8, 0.82], size=6)
    answers = {}
    for number, level in enumerate(levels):
        base = generator.random(400) < level
        answers[f"m{number}"] = base ^ (generator.random((3, 400)) < 0.08)
        for seed in range(3):
            runs(f"m{number}", seed, answers[f"m{number}"][seed])
    expected, decisive = plain_marks(answers, generator)
    assert not [p for p in decisive if 0.02 < p < 0.12]
    assert {BEST, SECOND} <= set(expected.values())
    assert marks(summary(comparison_of(tmp_path))) == expected
    assert marks(fused(*comparison_of(tmp_path)), "last") == expected


def test_the_spread_over_seeds_decides_where_samples_alone_would_not(runs, tmp_path, comparison_of):
    for seed, accuracy in enumerate((0.95, 0.6, 0.9)):
        runs("shaky", seed, np.arange(2000) < 2000 * accuracy)
    for seed in range(3):
        runs("steady", seed, np.arange(2000) < 2000 * 0.7)
    assert marks(summary(comparison_of(tmp_path))) == {"shaky": BEST, "steady": BEST}
    (comparison,) = comparison_of(tmp_path)
    alone = replace(comparison, runs=[run for run in comparison.runs if run.seed == 0], results={})
    assert marks(summary([alone])) == {"shaky": BEST, "steady": SECOND}
    assert any("With one seed only test samples" in note for note in summary([alone]).notes)


def test_pairing_tells_apart_what_independent_tests_would_not(runs, tmp_path, comparison_of):
    base = right(0.7, 400, 0)
    better = base.copy()
    better[np.flatnonzero(~base)[:12]] = True  # 3 points, a third of them would be chance if unpaired
    runs("plain", 0, base)
    runs("better", 0, better)
    assert marks(summary(comparison_of(tmp_path))) == {"better": BEST, "plain": SECOND}


def test_equal_answers_share_a_mark_whatever_the_metric(answered, tmp_path, comparison_of):
    generator = np.random.default_rng(2)
    labels = generator.integers(5, size=700)
    logits = generator.normal(size=(700, 5)) + 2 * np.eye(5)[labels]
    for seed in range(3):
        for method in ("one", "same", "twin"):
            answered(method, seed, {"fused": logits + seed / 10}, labels)
        answered("worse", seed, {"fused": logits - 2 * np.eye(5)[labels]}, labels)
    table = summary(comparison_of(tmp_path))
    for name in ("acc", "macro-F1", "mAP"):
        assert marks(table, name) == {"one": BEST, "same": BEST, "twin": BEST, "worse": SECOND}


def test_a_metric_is_marked_by_its_own_test(answered, tmp_path, comparison_of):
    labels = np.repeat([0, 1], [950, 50])
    rare = np.where(labels[:, None] == [0, 1], 1.0, 0.0)
    wrong = np.random.default_rng(0).choice(950, 50, replace=False)
    rare[wrong] = rare[wrong][:, ::-1]
    answered("majority", 0, {"fused": np.tile([1.0, 0.0], (1000, 1))}, labels)  # right for 950, wrong for the others
    answered("balanced", 0, {"fused": rare}, labels)  # right for 950 too, the rare class among them
    table = summary(comparison_of(tmp_path))
    assert marks(table) == {"balanced": BEST, "majority": BEST}
    assert marks(table, "macro-F1") == {"balanced": BEST, "majority": SECOND}
    assert marks(table, "mAP") == {"balanced": BEST, "majority": SECOND}


def test_modalities_are_marked_and_probes_are_not(answered, tmp_path, comparison_of):
    for method, accuracy in (("strong", 0.9), ("weak", 0.6)):
        heads = {"fused": 0.7, "audio": accuracy, "video": 0.7}
        logits = {head: logits_of(right(level, 500, number)) for number, (head, level) in enumerate(heads.items())}
        answered(method, 0, logits, np.zeros(500, dtype=int))
    table = unimodal(*comparison_of(tmp_path))
    assert marks(table, "own, best valid") == {"strong": BEST, "weak": SECOND}
    assert set(marks(table, "probe").values()) == {NONE}
    assert any("probe:" in note and "unmarked" in note for note in table.notes)


# --- who is placed -------------------------------------------------------------------------------------------------


def test_places_by_hand():
    means = {"a": 0.9, "b": 0.89, "c": 0.8, "d": 0.79, "e": 0.5}
    ps = {("a", "b"): 0.5, ("c", "d"): 0.2}
    found = place(means, lambda leader, others: {other: ps.get((leader, other), 0.0001) for other in others})
    assert found == {"a": BEST, "b": BEST, "c": SECOND, "d": SECOND}


def test_holm_is_over_the_tests_against_one_leader():
    means = {"a": 0.9, "b": 0.8, "c": 0.7}
    found = place(means, lambda leader, others: dict.fromkeys(others, 0.03))
    assert found == {"a": BEST, "b": BEST, "c": BEST}  # two tests: 0.06
    found = place({"a": 0.9, "b": 0.8}, lambda leader, others: dict.fromkeys(others, 0.03))
    assert found == {"a": BEST, "b": SECOND}


def test_what_cannot_be_tested_is_not_marked():
    means = {"a": 0.9, "b": 0.8, "c": 0.7}
    assert place(means, lambda leader, others: {}) == {}
    assert place({"a": 0.9}, lambda leader, others: {}) == {}
    assert place({}, lambda leader, others: {}) == {}
    found = place(means, lambda leader, others: dict.fromkeys(set(others) - {"b"}, 0.0001))
    assert found == {"a": BEST, "c": SECOND}


def test_one_method_is_not_the_best_of_anything(runs, tmp_path, comparison_of):
    runs("alone", 0, right(0.7, 50, 0))
    table = summary(comparison_of(tmp_path))
    assert marks(table) == {"alone": NONE}
    assert any("No marks" in note for note in table.notes)


def test_methods_without_readable_predictions_are_shown_but_not_marked(runs, made_up, tmp_path, comparison_of):
    runs("good", 0, right(0.9, 200, 0))
    runs("poor", 0, right(0.4, 200, 1))
    made_up("torn", 0, accuracy=0.6)
    table = summary(comparison_of(tmp_path))
    assert marks(table) == {"good": BEST, "poor": SECOND, "torn": NONE}
    assert dict(table.rows)["torn"][0].mean == pytest.approx(60)
    assert any("Without a test, hence unmarked: torn" in note for note in table.notes)


def test_where_the_highest_mean_cannot_be_tested_nobody_is_best(runs, made_up, tmp_path, comparison_of):
    runs("good", 0, right(0.8, 200, 0))
    runs("poor", 0, right(0.4, 200, 1))
    made_up("torn", 0, accuracy=0.95)
    assert set(marks(summary(comparison_of(tmp_path))).values()) == {NONE}


def test_methods_of_different_seeds_cannot_be_paired(runs, tmp_path, comparison_of):
    runs("early", 0, right(0.9, 200, 0))
    runs("late", 1, right(0.4, 200, 1))
    assert marks(summary(comparison_of(tmp_path))) == {"early": NONE, "late": NONE}


def test_scores_that_are_no_numbers_are_not_placed(runs, tmp_path, comparison_of):
    runs("good", 0, right(0.9, 200, 0))
    runs("poor", 0, right(0.4, 200, 1))
    folder = runs("broken", 0, right(0.5, 200, 2))
    record = json.loads((folder.path / "record.json").read_text())
    record["rules"]["best_valid"]["test"]["fused"]["accuracy"] = float("nan")
    (folder.path / "record.json").write_text(json.dumps(record))
    assert marks(summary(comparison_of(tmp_path))) == {"good": BEST, "poor": SECOND, "broken": NONE}


# --- cells and notes -----------------------------------------------------------------------------------------------


def test_missing_failed_and_unsupported_differ_and_say_why(runs, tmp_path, comparison_of):
    runs("good", 0, right(0.7, 50, 0))
    runs("fine", 0, right(0.7, 50, 1))
    runs("elsewhere", 0, right(0.7, 50, 1), dataset="other")
    first, other = comparison_of(tmp_path)
    reasons = {"three": "defined for two modalities"}
    table = summary([replace(first, unsupported=reasons), other])
    rows = {name: [cell.symbol if not cell.values else "" for cell in row[::3]] for name, row in table.rows}
    assert rows == {
        "fine": ["", MISSING],
        "good": ["", MISSING],
        "elsewhere": [MISSING, ""],
        "three": [UNSUPPORTED, MISSING],
    }
    assert "n/a three: defined for two modalities." in table.notes
    for text in (table.to_latex(), table.to_markdown(), table.to_csv()):
        assert "n/a" in text
    detail = fused(replace(first, unsupported=reasons))
    assert [name for name, _ in detail.rows][-1] == "three"


def test_a_failed_run_shows_a_cross(runs, made_up, tmp_path, comparison_of):
    runs("good", 0, right(0.7, 50, 0))
    made_up("bad", 0, state=State.FAILED, cause="killed")
    cells = dict(summary(comparison_of(tmp_path)).rows)["bad"]
    assert {cell.symbol for cell in cells} == {FAILED}


def test_seeds_are_counted_and_exceptions_named(runs, tmp_path, comparison_of):
    for method, count in (("a", 3), ("b", 3), ("c", 1)):
        for seed in range(count):
            runs(method, seed, right(0.7, 50, seed))
    assert any("n = 3 seeds, but c 1, selection best_valid" in note for note in summary(comparison_of(tmp_path)).notes)


def test_every_metric_has_every_rule_and_its_optimism(answered, tmp_path, comparison_of):
    answered("a", 0, {"fused": logits_of(right(0.7, 50, 0))}, np.zeros(50, dtype=int))
    table = fused(*comparison_of(tmp_path), in_tables())
    names = [(column.group, column.name) for column in table.columns]
    rules = ["best valid", "last", "oracle†", "optimism"]
    assert names == [(f"fused test {metric} at epoch", rule) for metric in ("acc", "macro-F1", "mAP") for rule in rules]


def test_the_order_of_records_and_asking_twice_change_no_byte(answered, tmp_path, comparison_of):
    generator = np.random.default_rng(0)
    labels = generator.integers(4, size=90)
    for method in ("a", "b", "c"):
        for seed in range(3):
            logits = generator.normal(size=(90, 4)) + np.eye(4)[labels]
            answered(method, seed, {"fused": logits, "audio": logits[::-1]}, labels)
    built = [list(ComparisonReport().build(comparison_of(tmp_path, shuffle))) for shuffle in (1, 2, 3)]
    assert built[0] == built[1] == built[2]
    comparisons = comparison_of(tmp_path)
    assert list(ComparisonReport().build(comparisons)) == list(ComparisonReport().build(comparisons))


def test_predictions_are_read_once_for_all_reports(runs, tmp_path, comparison_of):
    folder = runs("a", 0, right(0.7, 50, 0))
    runs("b", 0, right(0.7, 50, 1))
    (comparison,) = comparison_of(tmp_path)
    found = comparison.once(paired)
    folder.predictions.unlink()
    assert comparison.once(paired) is found
    assert found.right.keys() == {"a", "b"}
