"""Relearning: purity, when it happens, and where it takes encoders."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from benchmark.methods.relearning import Relearning, cluster, draw_back, purity
from torch import nn

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train


@pytest.mark.parametrize("seed", range(20))
def test_purity_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    clusters, labels = rng.integers(0, 4, 50), rng.integers(0, 6, 50)
    winners = [Counter(labels[clusters == c].tolist()).most_common(1)[0][1] for c in set(clusters.tolist())]
    assert purity(torch.tensor(clusters), torch.tensor(labels)) == pytest.approx(sum(winners) / 50, abs=1e-9)


def test_purity_is_one_for_pure_clusters_and_the_largest_class_for_a_single_one():
    labels = torch.tensor([0, 0, 1, 1, 1, 2])
    assert purity((labels + 1) % 3, labels) == 1
    assert purity(torch.zeros(6, dtype=torch.long), labels) == 0.5


def test_clusters_find_separate_groups_of_any_scale():
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.stack([labels == 1, labels == 2], 1) + 0.01 * torch.randn(60, 2, generator=draw)
    assert purity(cluster(features * torch.tensor([1.0, 1e4]) + 5, 3), labels) == 1
    assert len(cluster(features[:2], 3)) == 2  # fewer samples than classes


@pytest.mark.parametrize("seed", range(20))
def test_drawing_back_equals_an_independent_calculation(seed):
    rng = np.random.default_rng(seed)
    now, first, weight = rng.normal(size=(3, 4)), rng.normal(size=(3, 4)), rng.uniform()
    parameter = nn.Parameter(torch.tensor(now))
    draw_back([parameter], [torch.tensor(first)], torch.tensor(weight, dtype=torch.float64))
    np.testing.assert_allclose(parameter.detach().numpy(), now + weight * (first - now), atol=1e-6)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, [7.0, -0.3]), (1.0, [0.1, 2.0])])
def test_no_gap_changes_nothing_and_a_large_one_starts_anew(weight, expected):
    parameter = nn.Parameter(torch.tensor([7.0, -0.3]))
    draw_back([parameter], [torch.tensor([0.1, 2.0])], torch.tensor(weight))
    assert torch.equal(parameter, torch.tensor(expected))


def epochs_of(trainer):
    """The epochs at whose start the method re-learns."""
    seen = []
    trainer.method.relearn = seen.append
    for epoch in range(trainer.run.epochs):
        trainer.method.start_epoch(epoch)
    return seen


def test_happens_after_epochs_20_40_and_60_of_90_as_in_the_released_script(make_trainer):
    assert epochs_of(make_trainer(Relearning, {}, epochs=90)) == [21, 41, 61]
    assert epochs_of(make_trainer(Relearning, {"every": 3, "times": 2}, epochs=20)) == [4, 7]
    assert epochs_of(make_trainer(Relearning, {"times": 0}, epochs=9)) == []


def test_intervals_that_leave_no_time_are_refused():
    assert "never" not in (Relearning.Config(every=2).refuse(4) or "")
    assert "every=3 in 4 epochs" in Relearning.Config(every=3).refuse(4)
    assert Relearning.Config(every=3, times=0).refuse(4) is None


@pytest.mark.parametrize("count", [2, 3])
def test_encoders_are_drawn_back_by_their_gap_and_the_rest_stays(make_trainer, count):
    trainer = make_trainer(Relearning, {"every": 1}, dataset=Blobs(Blobs.Config(num_modalities=count)))
    train(trainer, 2)
    method = trainer.method
    trainer.run.begin_epoch(2)
    purities = iter([dict.fromkeys(method.initial, 0.9), {m: 0.9 - 0.2 * i for i, m in enumerate(method.initial)}])
    method.purities = lambda batches: next(purities)
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    momentum = [state["momentum_buffer"].clone() for state in method.optimizer.state.values()]
    method.relearn(2)
    logged = trainer.run.means()
    first = {
        f"encoders.{m}.{name}": value
        for m, encoder in method.net.encoders.items()
        for (name, _), value in zip(encoder.named_parameters(), method.initial[m], strict=True)
    }
    for name, value in method.net.state_dict().items():
        expected = before[name]
        if name in first:
            position = list(method.initial).index(name.split(".")[1])
            weight = math.tanh(3 * 0.2 * position)
            assert logged[f"drawn_back/{name.split('.')[1]}"] == pytest.approx(weight)
            expected = weight * first[name] + (1 - weight) * before[name]
        torch.testing.assert_close(value, expected)
    assert all(map(torch.equal, momentum, (s["momentum_buffer"] for s in method.optimizer.state.values())))


def test_first_values_are_those_of_the_run_also_after_resuming(make_trainer):
    first, second = make_trainer(Relearning, {"every": 1}), make_trainer(Relearning, {"every": 1})
    initial = {m: [p.detach().clone() for p in e.parameters()] for m, e in first.method.net.encoders.items()}
    train(first, 3)
    second.load_state(first.state())
    for modality, values in initial.items():
        assert all(map(torch.equal, values, second.method.initial[modality]))
        moved = second.method.net.encoders[modality].parameters()
        assert not all(map(torch.equal, values, moved))


def test_samples_looked_at_are_counted(make_trainer):
    trainer = make_trainer(Relearning, {"every": 2, "times": 1})
    samples = [trainer.run_epoch()[0]["samples"] for _ in range(4)]
    assert samples == [trainer.run.num_train * n for n in (1, 1, 1, 2)]
