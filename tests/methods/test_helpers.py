"""What several methods share: evaluation in between, heads, windows of epochs."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods._features import encode_all, evaluating
from benchmark.methods._heads import MeanHead, projections
from benchmark.methods._schedule import tenth, within
from benchmark.methods.concat import Concat

from benchmark.check.synthetic import Blobs
from benchmark.model import concat_net


def test_a_network_evaluates_without_gradients_and_trains_again_even_after_an_error():
    net = concat_net(Blobs(Blobs.Config()).task)
    with evaluating(net):
        assert not net.training
        assert not torch.is_grad_enabled()
    assert net.training
    assert torch.is_grad_enabled()
    with pytest.raises(KeyError), evaluating(net):
        raise KeyError
    assert net.training
    assert torch.is_grad_enabled()


def test_all_features_are_those_of_single_batches_and_leave_no_trace(make_trainer):
    trainer = make_trainer(Concat, {})
    net, before = trainer.method.net, {k: v.clone() for k, v in trainer.method.net.state_dict().items()}
    features, labels = encode_all(net, trainer.run.train_in_order())
    assert torch.equal(labels, trainer.run.train_labels)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    first = next(trainer.run.train_in_order())
    net.eval()
    for modality, u in net.encode(first.inputs).items():
        assert torch.equal(features[modality][: len(u)], u.detach())
        assert not features[modality].requires_grad


def test_a_mean_head_predicts_by_the_mean():
    head, features = MeanHead({"a": 3, "b": 2}, 4), {"a": torch.randn(5, 3), "b": torch.randn(5, 2)}
    out = head(features)
    torch.testing.assert_close(out.fused, torch.stack(list(out.unimodal.values())).mean(0))


@pytest.mark.parametrize(("dims", "parameters"), [({"a": 3, "b": 3}, 0), ({"a": 3, "b": 2}, 4)])
def test_features_of_one_width_pass_as_they_are_and_others_a_linear_map_each(dims, parameters):
    maps = projections(dims, 3)
    assert len(list(maps.parameters())) == parameters
    for modality, dim in dims.items():
        u = torch.randn(2, dim)
        assert maps[modality](u).shape == (2, 3)
        assert torch.equal(maps[modality](u), u) is not bool(parameters)


def test_a_window_of_epochs_holds_both_ends_and_may_have_no_last_one():
    assert [epoch for epoch in range(6) if within(epoch, 2, 4)] == [2, 3, 4]
    assert [epoch for epoch in range(6) if within(epoch, 4, None)] == [4, 5]
    assert not within(3, 4, 2)


def test_a_tenth_of_a_short_run_is_an_epoch():
    assert [tenth(epochs) for epochs in (1, 9, 10, 39, 100)] == [1, 1, 1, 3, 10]
