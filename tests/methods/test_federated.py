"""The federated setting: who holds what, what is averaged over whom, and that one client is the local method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods._federated import Average, assign_modalities, muted, owner, partition
from benchmark.methods.federated import FedAvg

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train
from benchmark.errors import UserError
from benchmark.model import concat_net
from benchmark.plan.sweep import Sweep, plan
from benchmark.registry import METHODS

NAMES = ("audio", "video", "text")

# --- who holds what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("concentration", [0.05, 1.0, 1e8])
def test_the_partition_covers_every_sample_once(seed, concentration):
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 5, 60))
    parts = partition(labels, 12, concentration, seed)
    assert torch.cat(parts).sort().values.tolist() == list(range(60))
    assert all(len(part) >= 2 for part in parts)
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)


def test_the_partition_is_a_function_of_its_seed():
    labels = torch.arange(60) % 4
    first, again, other = (partition(labels, 5, 1.0, seed) for seed in (3, 3, 4))
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def spread(concentration, seed):
    """Return the standard deviation, over clients and classes, of the share of a class that a client holds."""
    labels = torch.arange(1200) % 4
    shares = [labels[part].bincount(minlength=4) / 300 for part in partition(labels, 6, concentration, seed)]
    return float(torch.stack(shares).std())


@pytest.mark.parametrize("seed", range(5))
def test_clients_are_alike_where_the_concentration_is_large_and_differ_as_dirichlet_says(seed):
    assert spread(1e8, seed) < 0.002
    assert spread(1e8, seed) < spread(5.0, seed) < spread(0.1, seed)


def test_shares_have_the_variance_of_the_distribution():
    found = np.mean([spread(1.0, seed) ** 2 for seed in range(200)])
    assert found == pytest.approx((1 / 6) * (5 / 6) / 7, rel=0.15)  # of a share of Dirichlet(1, ..., 1), six of them


@pytest.mark.parametrize(("share", "complete"), [(0.0, 0), (0.5, 5), (1.0, 10)])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
def test_the_others_observe_one_modality_each_by_turns(share, complete, names):
    observed = assign_modalities(10, names, share, seed=1)
    single = [modalities for modalities in observed if len(modalities) == 1]
    assert observed.count(names) == complete
    assert len(single) == 10 - complete
    counts = [single.count((m,)) for m in names]
    assert max(counts) - min(counts) <= 1
    assert observed != assign_modalities(10, names, share, seed=2) or complete == 10


# --- the mean ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_equals_an_independent_one_and_is_by_weight(seed):
    random = np.random.default_rng(seed)
    values, weights = random.normal(size=(4, 3, 2)), random.integers(1, 50, 4)
    average = Average()
    for value, weight in zip(values, weights, strict=True):
        average.add({"w": torch.from_numpy(value)}, int(weight))
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / weights.sum()
    np.testing.assert_allclose(average.mean()["w"], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_the_mean_of_identical_clients_is_each_of_them_in_every_bit(seed):
    torch.manual_seed(seed)
    net = concat_net(Blobs(Blobs.Config()).task)
    average = Average()
    for weight in (3, 7, 1, 11):
        average.add(net.state_dict(), weight)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in average.mean().items())


def test_the_mean_of_one_who_moved_lies_between_though_the_tensor_is_reused():
    value, average = torch.tensor([1.0, -2.0]), Average()
    average.add({"w": value}, 5)
    value += 2 * 0.25
    average.add({"w": value}, 5)
    assert average.mean()["w"].tolist() == [1.25, -1.75]


def test_whole_numbers_are_rounded_and_truth_is_by_majority():
    average = Average()
    for count, flag in ((3, True), (4, False), (4, False)):
        average.add({"count": torch.tensor(count), "flag": torch.tensor([flag, not flag])}, 1)
    assert average.mean()["count"].item() == 4
    assert average.mean()["count"].dtype == torch.long
    assert average.mean()["flag"].tolist() == [False, True]


def test_each_name_is_averaged_over_those_that_have_it():
    average = Average()
    average.add({"audio": torch.tensor(1.0), "head": torch.tensor(1.0)}, 1)
    average.add({"video": torch.tensor(5.0), "head": torch.tensor(4.0)}, 2)
    assert {name: value.item() for name, value in average.mean().items()} == {"audio": 1.0, "video": 5.0, "head": 3.0}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.encoders.audio.layers.0.weight", "audio"),
        ("net.head.slices.video", "video"),
        ("prototypes_video", "video"),
        ("net.head.bias", None),
        ("net.head.audiovisual.weight", None),
    ],
)
def test_what_belongs_to_a_modality_is_told_by_its_name(name, expected):
    assert owner(name, NAMES) == expected


def test_a_muted_encoder_gives_zeros_takes_no_gradient_and_is_heard_again():
    net = concat_net(Blobs(Blobs.Config()).task)
    inputs = {m: torch.randn(5, 6) for m in ("audio", "video")}
    with muted(net, ("audio", "video"), ("video",)):
        out = net(inputs)
        out.fused.sum().backward()
    assert not out.features["audio"].any()
    assert out.features["video"].any()
    assert not any(p.grad.any() for p in net.encoders["audio"].parameters())
    assert net(inputs).features["audio"].any()


# --- rounds --------------------------------------------------------------------------------------------------------


def served(trainer):
    """Train a round and return who trained on what: [(client, positions of a batch among its samples)]."""
    method, seen, step = trainer.method, [], trainer.method.step
    method.step = lambda batch: (seen.append((method.turn.client.number, batch.index.tolist())), step(batch))[1]
    line, _ = trainer.run_epoch()
    return seen, line


@pytest.mark.parametrize("passes", [None, 3])
def test_a_round_serves_the_samples_of_its_clients_and_counts_them(make_trainer, passes):
    trainer = make_trainer(FedAvg, {"clients": 4, "per_round": 2, "local_epochs": passes})
    seen, line = served(trainer)
    clients = {number: trainer.method.clients[number].run.num_train for number, _ in seen}
    assert len(clients) == 2
    for number, size in clients.items():
        positions = [i for client, index in seen for i in index if client == number]
        assert sorted(positions) == sorted(list(range(size)) * (passes or 2))
    assert line["samples"] == (passes or 2) * sum(clients.values())
    assert line["train"]["trained/audio"] == 1.0


def pairs(batch):
    return zip(batch.inputs["audio"], batch.labels, strict=True)


def test_clients_together_hold_all_of_train_and_the_right_labels(make_trainer):
    trainer = make_trainer(FedAvg, {"clients": 4})
    whole = {tuple(x.tolist()): y for b in trainer.run.train_in_order() for x, y in pairs(b)}
    found = [
        (tuple(x.tolist()), y)
        for client in trainer.method.clients
        for batch in client.run.train_in_order()
        for x, y in pairs(batch)
    ]
    assert len(found) == trainer.run.num_train == len(whole)
    assert all(whole[x] == y for x, y in found)


def test_a_round_is_the_mean_of_clients_that_start_alike_by_their_samples(make_trainer):
    trainer = make_trainer(FedAvg, {"clients": 3, "per_round": 2, "local_epochs": 2, "concentration": 0.5})
    method, starts, ends, sizes = trainer.method, [], [], []
    begin = method.begin_turn
    method.begin_turn = lambda epoch: (starts.append(method.snapshot()), begin(epoch))
    method.end_turn = lambda epoch: (ends.append(method.snapshot()), sizes.append(method.turn.client.run.num_train))
    before = method.snapshot()
    trainer.run_epoch()
    after = method.snapshot()
    assert len(ends) == 2
    assert sizes[0] != sizes[1]
    for name, value in after.items():
        assert torch.equal(starts[0][name], before[name])
        assert torch.equal(starts[1][name], before[name])
        if value.is_floating_point():
            expected = sum(n * x[name].double() for n, x in zip(sizes, ends, strict=True)) / sum(sizes)
            torch.testing.assert_close(value.double(), expected, atol=1e-6, rtol=1e-6)
    assert not torch.equal(ends[0]["net.head.bias"], ends[1]["net.head.bias"])


def test_without_an_owner_in_the_round_a_modality_stays(make_trainer):
    trainer = make_trainer(FedAvg, {"clients": 4, "per_round": 1, "multimodal": 0.0})
    method = trainer.method
    for epoch in range(4):
        before = method.snapshot()
        trainer.run_epoch()
        (trained,) = method.turn.modalities
        for name, value in method.snapshot().items():
            assert torch.equal(value, before[name]) is (owner(name, NAMES) not in {None, trained}), (epoch, name)


def test_optimizers_start_afresh_unless_they_are_kept(make_trainer):
    for keep in (False, True):
        trainer = make_trainer(FedAvg, {"clients": 3, "keep_optimizer": keep})
        trainer.run_epoch()
        assert any(optimizer.state for optimizer in trainer.run.optimizers) is keep
        assert len(trainer.run.optimizers) == 3


@pytest.mark.parametrize("local", ["concat", "mla", "lfm", "reconboost", "umt", "greedy", "agm"])
def test_one_client_is_the_local_method(make_trainer, local):
    alone = {"clients": 1, "per_round": 1, "keep_optimizer": True, "local": local}
    ours, theirs = make_trainer(FedAvg, alone), make_trainer(METHODS.find(local).load(), {})
    train(ours), train(theirs)
    state = theirs.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in ours.method.local.state_dict().items())


@pytest.mark.parametrize("local", ["mla", "mmpareto", "gblend", "remix", "smv", "cml"])
def test_other_methods_train_clients_that_lack_modalities(make_trainer, local):
    settings = {"clients": 3, "per_round": 3, "local": local, "multimodal": 0.34}
    whole, first, second = (make_trainer(FedAvg, settings, epochs=3) for _ in range(3))
    history = train(whole)
    train(first, 1)
    second.load_state(first.state())
    assert train(second) == history[1:]


# --- what is refused, and what a run's id covers -------------------------------------------------------------------


@pytest.mark.parametrize(("local", "reason"), [("aug", "state besides tensors"), ("federated", "federated itself")])
def test_what_has_no_mean_is_unsupported(local, reason):
    config = FedAvg.Config(local=local)
    assert reason in FedAvg.unsupported(config, Blobs(Blobs.Config()).task)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("federated[local=concta]", "Did you mean 'concat'"),
        ('federated[local=ogm,settings={"alhpa":1}]', "Did you mean 'alpha'"),
        ("federated[clients=2,per_round=3]", "per_round at most clients, 2"),
    ],
)
def test_mistakes_are_told_before_anything_starts(blobs, token, words):
    with pytest.raises(UserError, match=words):
        plan(Sweep([token], [blobs], [0]))


def test_too_many_clients_are_told(make_trainer):
    with pytest.raises(UserError, match="at least 2 training samples for each of 100 clients, got 85 samples"):
        make_trainer(FedAvg, {"clients": 100})


def test_the_version_covers_that_of_the_local_method(blobs, monkeypatch):
    monkeypatch.setattr(METHODS.find("ogm").load(), "version", 3)
    versions = [
        plan(Sweep([token], [blobs], [0])).runs[0].method.version
        for token in ("federated", "federated[local=ogm]", "federated[local=ogm,clients=5]")
    ]
    assert versions == [1, 3, 3]
