"""Metrics by values worked out by hand, and how they and the rules are printed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmark.metrics import ACCURACY, LOSS, MACRO_F1, MAP, METRICS, in_tables, present
from benchmark.rules import (
    BEST_VALID,
    DAGGER,
    LAST,
    ORACLE_TEST,
    RULES,
    dagger,
    kept,
    known_rule,
    needs_validation,
    title,
)

LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]], dtype=np.float32))
LABELS = np.array([0, 1, 1, 2])
"""Guesses are 0, 0, 1, 0. F1: 2 x 1 / (3 + 1) for class 0, 2 x 1 / (1 + 2) for class 1, 0 for class 2, never guessed.
Precision: the one of class 0 leads its column; those of class 1 lead theirs; the one of class 2 leads too."""
BY_HAND = {
    ACCURACY: 2 / 4,
    MACRO_F1: (1 / 2 + 2 / 3 + 0) / 3,
    MAP: 1.0,
    LOSS: -math.log(0.7 * 0.3 * 0.8 * 0.4) / 4,
}


@pytest.mark.parametrize("metric", BY_HAND, ids=lambda metric: metric.name)
def test_metrics_are_the_values_worked_out_by_hand(metric):
    assert metric.compute(LOGITS, LABELS) == pytest.approx(BY_HAND[metric], rel=1e-6)
    if metric.shares:
        assert metric.shares(LOGITS, LABELS).mean() == pytest.approx(BY_HAND[metric], rel=1e-6)


def test_average_precision_is_of_the_classes_that_occur():
    # class 1: second and third of its column, (1/2 + 2/3) / 2; class 0: the last of three, 1/3; class 2 has no samples
    logits = np.log(np.array([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.5, 0.35, 0.15]], dtype=np.float32))
    labels = np.array([0, 1, 1])
    by_hand = ((1 / 2 + 2 / 3) / 2 + 1 / 3) / 2
    assert MAP.compute(logits, labels) == pytest.approx(by_hand)
    assert MAP.shares(logits, labels).mean() == pytest.approx(by_hand)


def test_values_are_printed_as_each_metric_says():
    assert [metric.text(0.12345) for metric in (ACCURACY, MACRO_F1, MAP, LOSS)] == ["12.3", "12.3", "12.3", "0.123"]
    assert [metric.heading for metric in METRICS.values()] == ["acc", "macro-F1", "mAP", "loss (nats)"]


def test_only_the_loss_is_better_when_lower_and_only_map_waits_for_the_end():
    assert [metric for metric in METRICS.values() if not metric.higher_is_better] == [LOSS]
    assert [metric for metric in METRICS.values() if not metric.each_epoch] == [MAP]


def test_tables_have_what_some_record_has_and_everything_while_there_is_none():
    assert in_tables() == [ACCURACY, MACRO_F1, MAP]
    assert present([]) == [ACCURACY, MACRO_F1, MAP]
    assert present(["map", "loss", "unknown", "accuracy"]) == [ACCURACY, MAP]


def test_rules_that_look_at_test_have_a_dagger_wherever_they_are_named():
    assert [rule.title for rule in RULES.values()] == ["best valid", "last", f"oracle{DAGGER}"]
    assert [title(rule.name) for rule in (BEST_VALID, LAST, ORACLE_TEST)] == [rule.title for rule in RULES.values()]
    assert [dagger(name) for name in (*RULES, "of tomorrow")] == ["", "", DAGGER, ""]
    assert title("of tomorrow") == "of tomorrow"


def test_an_unknown_rule_is_answered_with_those_that_there_are():
    assert known_rule("last") == "last"
    with pytest.raises(ValueError, match=r"^'best_valid', 'last' or 'oracle_test'$"):
        known_rule("first")


def test_the_model_that_is_kept_is_that_of_validation_or_the_last():
    assert kept([*RULES]) is BEST_VALID
    assert kept(["last", "oracle_test"]) is LAST


def test_only_the_rule_that_looks_at_validation_needs_it():
    assert [needs_validation(name) for name in (*RULES, "of tomorrow")] == [True, False, False, False]
