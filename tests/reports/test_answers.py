"""Shares are what they claim: their mean is scikit-learn's score, and they are its derivative by sample weights."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark.reports._answers import read_all
from benchmark.reports._bootstrap import Resamples, average_seeds
from scipy.special import softmax
from sklearn.metrics import average_precision_score, f1_score

from benchmark.shares import f1_shares, precision_shares


def f1(chances, labels, weights=None):
    classes = range(chances.shape[1])
    return f1_score(
        labels, chances.argmax(1), labels=classes, average="macro", zero_division=0, sample_weight=weights
    )  # fmt: skip


def mean_precision(chances, labels, weights=None):
    return np.mean(
        [average_precision_score(labels == k, chances[:, k], sample_weight=weights) for k in np.unique(labels)]
    )


def f1_of(chances, labels):
    return f1_shares(chances.argmax(1), labels, chances.shape[1])


SCORES = pytest.mark.parametrize(
    ("shares_of", "score"), [(f1_of, f1), (precision_shares, mean_precision)], ids=["macro-F1", "mAP"]
)


def sample(count, num_classes, seed, levels=None):
    """Labels (N,) and chances (N, K) that know something of them; with `levels`, many of them are equal."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(num_classes, size=count)
    logits = generator.normal(size=(count, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    return softmax(logits if levels is None else np.round(logits * levels) / levels, axis=1), labels


@SCORES
@pytest.mark.parametrize("levels", [None, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", range(4))
def test_the_mean_share_is_the_score_and_each_share_its_slope(shares_of, score, levels, seed):
    chances, labels = sample(60, 4, seed, levels)
    shares = shares_of(chances, labels)
    assert shares.mean() == pytest.approx(score(chances, labels))
    step = 1e-5
    for position in range(0, 60, 7):
        high, low = np.ones(60), np.ones(60)
        high[position] += step
        low[position] -= step
        slope = (score(chances, labels, high) - score(chances, labels, low)) / (2 * step)
        assert (shares[position] - shares.mean()) / 60 == pytest.approx(slope, abs=1e-8)


@SCORES
def test_classes_without_samples_or_guesses_are_survived(shares_of, score):
    chances, labels = sample(40, 6, 0)
    labels[labels > 2] = 0
    chances[:, 4] = 0
    shares = shares_of(chances, labels)
    assert np.isfinite(shares).all()
    assert shares.mean() == pytest.approx(score(chances, labels))


@SCORES
def test_resampled_shares_spread_as_the_score_of_resamples_does(shares_of, score):
    chances, labels = sample(300, 4, 3)
    draws = Resamples(300, 2000).sums(shares_of(chances, labels)[None])[0] / 300
    generator, plain = np.random.default_rng(8), []
    for _ in range(200):
        drawn = generator.integers(300, size=300)
        plain.append(score(chances[drawn], labels[drawn]))
    assert draws.std() == pytest.approx(np.std(plain), rel=0.2)  # the standard error of the right side is 5 %
    assert draws.mean() == pytest.approx(np.mean(plain), abs=0.01)


@SCORES
def test_differences_of_two_methods_have_the_spread_of_paired_resamples(shares_of, score):
    first, labels = sample(300, 4, 5)
    noise = np.random.default_rng(6).normal(size=first.shape)
    second = softmax(np.log(first) + 0.4 * noise, axis=1)
    draws = average_seeds(Resamples(300, 2000).sums((shares_of(first, labels) - shares_of(second, labels))[None])) / 300
    generator, plain = np.random.default_rng(9), []
    for _ in range(200):
        drawn = generator.integers(300, size=300)
        plain.append(score(first[drawn], labels[drawn]) - score(second[drawn], labels[drawn]))
    assert draws.std() == pytest.approx(np.std(plain), rel=0.2)


def test_predictions_give_the_scores_of_the_record(answered, tmp_path, comparison_of):
    for method in ("a", "b"):
        chances, labels = sample(80, 5, ord(method))
        audio, _ = sample(80, 5, 1)
        answered(method, 0, {"fused": np.log(chances), "audio": np.log(audio)}, labels)
    (comparison,) = comparison_of(tmp_path)
    found, notes = read_all(comparison)
    assert not notes
    for run in comparison.runs:
        for (rule, head, metric), shares in found[run.method, run.seed].shares.items():
            expected = run.score(rule, head, metric)
            assert shares.mean() == pytest.approx(expected, abs=1e-5), (rule, head, metric)
    scores = {(head, metric) for _, head, metric in found["a", 0].shares}
    assert scores == {("fused", "accuracy"), ("fused", "macro_f1"), ("fused", "map"), ("audio", "accuracy")}


@pytest.mark.parametrize("bad", ["nan", "duplicate", "empty"])
def test_unusable_predictions_are_said_to_be(answered, store, tmp_path, comparison_of, bad):
    chances, labels = sample(30, 3, 0)
    answered("good", 0, {"fused": np.log(chances)}, labels)
    logits, ids, kept = np.log(chances), [f"clip{number:05d}" for number in range(30)], slice(None)
    if bad == "nan":
        logits = np.full_like(logits, np.nan)
    if bad == "duplicate":
        ids[1] = ids[0]
    if bad == "empty":
        kept = slice(0, 0)
    folder = answered("bad", 0, {"fused": np.log(chances)}, labels)
    store(folder, {"fused": logits[kept]}, labels[kept], ids[kept])
    found, notes = read_all(*comparison_of(tmp_path))
    assert set(found) == {("good", 0)}
    assert "Not counted: bad, seed 0, predictions (expected" in notes[0]
