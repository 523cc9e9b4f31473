"""Marks from shares made up here: how many resamples, which end is best, what is equal."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from benchmark.reports import _marks
from benchmark.reports._answers import Answers
from benchmark.reports._marks import marks_of, mean_scores, p_values

from benchmark.metrics import METRICS, Metric
from benchmark.tables.table import Mark

SCORE = ("last", "fused", "accuracy")
ERROR = Metric("error", "error", "share of wrong answers", lambda logits, labels: 0.0, higher_is_better=False)


class MadeUp(SimpleNamespace):
    """A finished run: `method`, `seed` and `value`, its only score."""

    def score(self, rule, head, metric):
        return self.value


def marks(shares, score=SCORE):
    """Return the marks of {method: (N,)}, one seed each."""
    runs = [MadeUp(method=method, seed=0, value=float(np.mean(values))) for method, values in shares.items()]
    ids = [str(number) for number in range(len(next(iter(shares.values()))))]
    answers = {(method, 0): Answers(ids, {score: np.asarray(values)}) for method, values in shares.items()}
    return marks_of(SimpleNamespace(runs=runs), answers)


@pytest.mark.parametrize(("methods", "resamples"), [(2, 3000), (61, 3000), (62, 3050)])
def test_resamples_are_enough_for_the_tests_against_one_leader(monkeypatch, methods, resamples):
    asked = []

    def record(count, number):
        asked.append((count, number))
        return SimpleNamespace(sums=lambda rows: np.zeros((len(rows), 5), dtype=np.float32))

    monkeypatch.setattr(_marks, "Resamples", record)
    marks({f"m{number}": np.ones(4, dtype=bool) for number in range(methods)})
    assert asked == [(4, resamples)]


def test_the_lowest_is_best_where_lower_is_better(monkeypatch):
    monkeypatch.setitem(METRICS, ERROR.name, ERROR)
    shares = {"high": np.ones(50, dtype=bool), "low": np.zeros(50, dtype=bool)}
    assert marks(shares, ("last", "fused", "error")) == {
        ("last", "fused", "error"): {"low": Mark.BEST, "high": Mark.SECOND}
    }
    assert marks(shares) == {SCORE: {"high": Mark.BEST, "low": Mark.SECOND}}


def test_one_method_has_no_marks_at_all():
    assert marks({"alone": np.ones(5, dtype=bool)}) == {}


def test_totals_that_differ_by_hundredths_differ():
    def p(gap):
        return p_values({"a": {0: np.full(99, gap)}, "b": {0: np.zeros(99)}}, {}, "a", ["b"])

    assert p(0.04) == {"b": pytest.approx(2 / 100)}
    assert p(0.004) == {"b": 1.0}


def test_only_common_seeds_are_tested_and_those_without_any_are_left_out():
    sums = {"a": {0: np.full(9, 5.0), 1: np.full(9, -99.0)}, "b": {0: np.zeros(9)}, "c": {2: np.zeros(9)}}
    totals = {}
    assert p_values(sums, totals, "a", ["b", "c", "unknown"]) == {"b": pytest.approx(2 / 10)}
    assert set(totals) == {("a", (0,)), ("b", (0,))}
    totals["a", (0,)] = np.zeros(9)
    assert p_values(sums, totals, "a", ["b"]) == {"b": 1.0}, "what is worked out already is not worked out again"


def test_means_are_over_seeds_and_only_numbers():
    values = [("a", 0.5), ("a", 0.75), ("b", float("nan")), ("c", None), ("d", 0.0)]
    runs = [MadeUp(method=method, seed=seed, value=value) for seed, (method, value) in enumerate(values)]
    assert mean_scores(SimpleNamespace(runs=runs), SCORE) == {"a": 0.625, "d": 0.0}
