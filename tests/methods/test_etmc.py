"""ETMC: golden numbers, Dempster's rule term by term, and its loss from the functions of scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchmark.methods.etmc import (
    ETMC,
    EvidentialHead,
    combine,
    divergence_from_uniform,
    expected_cross_entropy,
    opinion_loss,
)
from scipy.special import digamma, gammaln

DIMS = {"audio": 3, "video": 4}


def dempster(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, float]:
    """The reduced rule of combination on two opinions' evidence (K,): combined evidence and uncertainty."""
    num_classes = len(first)
    beliefs = [e / (e.sum() + num_classes) for e in (first, second)]
    doubts = [num_classes / (e.sum() + num_classes) for e in (first, second)]
    conflict = sum(beliefs[0][i] * beliefs[1][j] for i in range(num_classes) for j in range(num_classes) if i != j)
    belief = (beliefs[0] * beliefs[1] + beliefs[0] * doubts[1] + beliefs[1] * doubts[0]) / (1 - conflict)
    doubt = doubts[0] * doubts[1] / (1 - conflict)
    assert belief.sum() + doubt == pytest.approx(1.0)
    return belief * num_classes / doubt, doubt


@pytest.mark.parametrize("seed", range(20))
def test_combination_equals_dempsters_rule_in_any_order(seed):
    rng = np.random.default_rng(seed)
    views = rng.gamma(1.0, 3.0, (3, 8, 5))
    ours = combine([torch.from_numpy(e) for e in views]).numpy()
    for i in range(8):
        for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
            folded, _ = dempster(views[order[0], i], views[order[1], i])
            folded, _ = dempster(folded, views[order[2], i])
            np.testing.assert_allclose(ours[i], folded, rtol=1e-6)


def test_golden_combination():
    evidence = combine([torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 0.0]])])
    assert evidence.tolist() == [[5.5, 1.0]]
    assert 2 / float((evidence + 1).sum()) == pytest.approx(0.235294, abs=1e-6)
    assert dempster(np.array([3.0, 1.0]), np.array([1.0, 0.0]))[1] == pytest.approx(0.235294, abs=1e-6)


def test_no_evidence_changes_nothing_and_more_never_adds_doubt():
    some = torch.rand(6, 4, dtype=torch.float64) * 5
    torch.testing.assert_close(combine([some, torch.zeros_like(some)]), some)
    other = torch.rand(6, 4, dtype=torch.float64) * 5
    doubts = [4 / (e.sum(1) + 4) for e in (some, other, combine([some, other]))]
    assert (doubts[2] <= torch.minimum(doubts[0], doubts[1])).all()


def test_golden_losses():
    nothing = torch.ones(1, 6, dtype=torch.float64)
    assert float(expected_cross_entropy(nothing, torch.tensor([2]))) == pytest.approx(2.283333, abs=1e-6)
    assert float(divergence_from_uniform(nothing)) == pytest.approx(0.0, abs=1e-12)
    evidence, label = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    assert float(expected_cross_entropy(evidence + 1, label)) == pytest.approx(0.783333, abs=1e-6)
    wrong = torch.tensor([[1.0, 2.0, 1.0]], dtype=torch.float64)
    assert float(divergence_from_uniform(wrong)) == pytest.approx(0.265279, abs=1e-6)
    assert float(opinion_loss(evidence, label, 0.5)) == pytest.approx(0.915973, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_loss_follows_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    evidence, labels, annealing = rng.gamma(1.0, 3.0, (8, 5)), rng.integers(0, 5, 8), float(rng.uniform())
    losses = []
    for e, y in zip(evidence, labels, strict=True):
        alpha = e + 1
        kept = alpha.copy()
        kept[y] = 1
        divergence = gammaln(kept.sum()) - gammaln(kept).sum() - math.log(math.factorial(4))
        divergence += ((kept - 1) * (digamma(kept) - digamma(kept.sum()))).sum()
        losses.append(digamma(alpha.sum()) - digamma(alpha[y]) + annealing * divergence)
    ours = opinion_loss(torch.from_numpy(evidence), torch.from_numpy(labels), annealing)
    assert float(ours) == pytest.approx(np.mean(losses), abs=1e-6)


@pytest.mark.parametrize("pseudo_view", [True, False])
def test_softmax_of_the_logits_is_the_expected_probability(pseudo_view):
    torch.manual_seed(0)
    head = EvidentialHead(DIMS, 4, pseudo_view).double()
    out = head({m: torch.randn(5, dim, dtype=torch.float64) for m, dim in DIMS.items()})
    assert len(out.evidence) == 3 + pseudo_view
    alpha = out.evidence[-1] + 1
    torch.testing.assert_close(out.fused.softmax(1), alpha / alpha.sum(1, keepdim=True))
    torch.testing.assert_close(out.unimodal["audio"].exp(), out.evidence[0] + 1)


def test_pressure_on_wrong_evidence_grows_by_the_epoch_and_stays(make_trainer):
    method = make_trainer(ETMC, {"anneal_epochs": 4}).method
    seen = []
    for epoch in range(6):
        method.start_epoch(epoch)
        seen.append(method.annealing)
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 7.0, 1e2, 1e3, 1e4, 1e8])
def test_divergence_from_uniform_in_single_precision_is_that_in_double(size):
    def plain(alpha):
        total = alpha.sum(1)
        log_ratio = total.lgamma() - alpha.lgamma().sum(1) - alpha.new_full((), float(alpha.shape[1])).lgamma()
        return log_ratio + ((alpha - 1) * (alpha.digamma() - total.digamma()[:, None])).sum(1)

    draw = torch.Generator().manual_seed(0)
    alpha = 1 + size * torch.rand(64, 6, generator=draw, dtype=torch.float64)
    alpha[:, 0] = 1  # the true class, whose evidence is left out
    exact, ours = alpha.requires_grad_(), alpha.detach().float().requires_grad_()
    expected, found = plain(exact), divergence_from_uniform(ours)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    slopes = [torch.autograd.grad(x.sum(), y)[0].double() for x, y in ((expected, exact), (found, ours))]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-3, atol=1e-6)
