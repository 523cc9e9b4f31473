"""Metrics against calculations of our own, and nothing lost on the way from samples to scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmark.method import Method, Reference
from benchmark.model import concat_net
from benchmark.train.evaluation import NonFiniteLogits, encode, predict, probe, score

DRAW = np.random.default_rng(0)
LABELS = {
    "all classes": DRAW.integers(0, 4, 60),
    "two classes missing": DRAW.integers(0, 2, 60) * 3,
    "one class": np.full(60, 2),
    "one sample": np.array([1]),
}


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def macro_f1(guess, truth, num_classes):
    scores = []
    for k in range(num_classes):
        hits = np.sum((guess == k) & (truth == k))
        wrong = np.sum((guess == k) != (truth == k))
        scores.append(2 * hits / (2 * hits + wrong) if hits else 0.0)
    return np.mean(scores)


def average_precision(column, positive):
    """Mean over positives of the precision among samples ranked at or above them (no ties in the column)."""
    ranked = positive[np.argsort(-column)]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return precision[ranked].mean()


@pytest.mark.parametrize("case", LABELS)
def test_scores_equal_calculations_by_hand(case):
    truth = LABELS[case]
    logits = DRAW.normal(size=(len(truth), 4)).astype(np.float32)
    logits[np.arange(len(truth)), truth] += 1
    logits[:, np.setdiff1d(range(4), truth)[:1]] -= 100  # a class that neither occurs nor is predicted
    scores = score({"fused": torch.from_numpy(logits)}, torch.from_numpy(truth), full=True)["fused"]
    guess, chances = logits.argmax(1), softmax(logits.astype(np.float64))
    assert scores["accuracy"] == pytest.approx(np.mean(guess == truth))
    assert scores["macro_f1"] == pytest.approx(macro_f1(guess, truth, 4))
    assert scores["loss"] == pytest.approx(-np.log(chances[np.arange(len(truth)), truth]).mean(), rel=1e-5)
    expected = [average_precision(chances[:, k], truth == k) for k in np.unique(truth)]
    assert scores["map"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_perfect_and_an_inverted_ranking_have_the_extreme_scores():
    truth = torch.arange(4)
    perfect = score({"fused": 9.0 * torch.eye(4)}, truth, full=True)["fused"]
    assert (perfect["accuracy"], perfect["macro_f1"], perfect["map"]) == (1.0, 1.0, 1.0)
    inverted = score({"fused": -9.0 * torch.eye(4)}, truth, full=True)["fused"]
    assert (inverted["accuracy"], inverted["macro_f1"], inverted["map"]) == (0.0, 0.0, 0.25)


def test_every_head_is_scored_by_itself():
    truth = torch.arange(3)
    scores = score({"fused": torch.eye(3), "audio": torch.eye(3).roll(1, 0)}, truth)
    assert (scores["fused"]["accuracy"], scores["audio"]["accuracy"]) == (1.0, 0.0)


@pytest.mark.parametrize("size", [1, 7, 49, 50, 64])
def test_no_sample_is_dropped_or_moved_by_any_evaluation_batch(trainer, size):
    whole, cut = trainer(eval_batch_size=256), trainer(eval_batch_size=size)
    expected, found = predict(whole.method, whole.feeds.test), predict(cut.method, cut.feeds.test)
    assert set(found) == {"fused", "audio", "video"}
    for head, logits in expected.items():
        assert found[head].shape == logits.shape == (50, 3)
        torch.testing.assert_close(found[head], logits)
    features = encode(cut.method, cut.feeds.test)
    assert {m: values.shape for m, values in features.items()} == {"audio": (50, 8), "video": (50, 8)}


class Odd(Method):
    reference = Reference("test")
    value = float("nan")

    def build_net(self, task):
        return concat_net(task)

    def predict(self, inputs):
        logits = super().predict(inputs)
        logits["audio"][-1, 0] = self.value
        return logits


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_raise_and_name_their_head(trainer, monkeypatch, value):
    monkeypatch.setattr(Odd, "value", value)
    subject = trainer(Odd)
    with pytest.raises(NonFiniteLogits, match="audio"):
        predict(subject.method, subject.feeds.test)


def test_predicting_is_in_eval_mode_and_restores_the_mode_it_found(trainer):
    subject = trainer()
    for training in (True, False):
        subject.method.train(training)
        first, second = (predict(subject.method, subject.feeds.test)["fused"] for _ in range(2))
        assert torch.equal(first, second), "dropout must be off"
        assert not first.requires_grad
        assert subject.method.training is training


def test_encoding_restores_the_mode_it_found(trainer):
    subject = trainer()
    subject.method.train()
    encode(subject.method, subject.feeds.test)
    assert subject.method.training


def blobs(distance, count=60):
    labels = np.arange(count) % 3
    features = DRAW.normal(size=(count, 5)).astype(np.float32)
    features[np.arange(count), labels] += distance
    return features, torch.from_numpy(labels)


def test_the_probe_separates_separable_features_at_any_scale_and_not_noise():
    train, test = blobs(20.0), blobs(20.0)
    assert probe(*train, *test) == 1.0
    assert probe(1e-4 * train[0], train[1], 1e-4 * test[0], test[1]) == 1.0
    assert probe(*blobs(0.0), *blobs(0.0)) < 0.7


def test_the_probe_does_not_depend_on_the_scale_of_any_feature():
    (train, train_labels), (test, test_labels) = blobs(1.5, 300), blobs(1.5, 300)
    scales = np.array([1e-4, 1.0, 1e3, 1.0, 1e4], dtype=np.float32)
    expected = probe(train, train_labels, test, test_labels)
    assert 0.5 < expected < 0.95
    assert probe(train * scales, train_labels, test * scales, test_labels) == pytest.approx(expected, abs=0.01)


def test_the_probe_is_deterministic():
    train, test = blobs(1.0), blobs(1.0)
    assert probe(*train, *test) == probe(*train, *test)
