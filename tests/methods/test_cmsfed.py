"""CMSFed: the greedy choice against golden and exhaustive ones, who trains what, prototypes and moves by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods._federated import Turn, owner
from benchmark.methods._prototypes import similarities
from benchmark.methods.cmsfed import CMSFed, choose, flat, weakest_loss

from benchmark.check.trained import train

NAMES = ("audio", "video")


def line(points):
    return np.abs(np.subtract.outer(points, points)).astype(float)


def greedy(joint, weak=None, ahead=None, threshold=1.5, count=2, candidates=None, seed=0):
    size = len(joint)
    return choose(
        joint,
        joint if weak is None else weak,
        np.ones(size) if ahead is None else np.asarray(ahead),
        threshold,
        count,
        candidates or size,
        np.random.default_rng(seed),
    )


# --- the choice ----------------------------------------------------------------------------------------------------


def test_two_of_two_pairs_of_points_are_one_of_each():
    points = [0, 1, 10, 11]
    assert [points[i] for i, _ in greedy(line(points))] == [1, 10]


@pytest.mark.parametrize("seed", range(20))
def test_picks_are_distinct_enough_and_never_add_to_the_distance(seed):
    random = np.random.default_rng(seed)
    joint, weak = (line(random.normal(size=12)) for _ in range(2))
    ahead = random.uniform(0.5, 3, 12)
    before = [joint.copy(), weak.copy()]
    picks = greedy(joint, weak, ahead, count=7, candidates=5, seed=seed)
    assert len({client for client, _ in picks}) == len(picks) == 7
    assert np.array_equal(joint, before[0])
    assert np.array_equal(weak, before[1])
    for alone, distances in ((False, joint), (True, weak)):
        chosen = [client for client, single in picks if single is alone]
        values = [distances[:, chosen[:n]].min(1).sum() for n in range(1, len(chosen) + 1)]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("alone", [False, True])
def test_each_pick_is_the_best_of_all_that_are_left(seed, alone):
    random = np.random.default_rng(seed)
    joint, weak = (line(random.normal(size=9)) for _ in range(2))
    chosen, distances = [], weak if alone else joint
    for client, single in greedy(joint, weak, np.full(9, 2.0 if alone else 1.0), count=5):
        assert single is alone
        values = {r: distances[:, [*chosen, r]].min(1).sum() for r in range(9) if r not in chosen}
        assert values[client] == pytest.approx(min(values.values()))
        chosen.append(client)


def test_who_is_ahead_trains_the_weak_modality_alone_and_has_a_distance_of_its_own():
    joint, weak = line([0, 1, 10, 11]), line([9, 0, 2, 3])
    assert greedy(joint, weak, ahead=[1, 1, 1, 1]) == [(1, False), (2, False)]
    # over `weak` client 2 is nearest to all, then 0; over `joint` 1 is first
    assert greedy(joint, weak, ahead=[1, 1, 2, 1]) == [(2, True), (1, False)]
    assert greedy(joint, weak, ahead=[2, 2, 2, 2], count=2) == [(2, True), (0, True)]
    assert not any(alone for _, alone in greedy(joint, weak, ahead=[2, 9, 9, 9], threshold=1e9, count=4))


def test_only_those_drawn_can_be_chosen():
    first = {greedy(line(range(20)), count=1, candidates=2, seed=seed)[0][0] for seed in range(40)}
    assert len(first) > 5


# --- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_similarities_equal_an_independent_calculation(seed):
    random = np.random.default_rng(seed)
    features, prototypes = random.normal(size=(6, 3)), random.normal(size=(4, 3))
    expected = [[-np.sqrt(((u - c) ** 2).sum()) for c in prototypes] for u in features]
    found = similarities(torch.from_numpy(features), torch.from_numpy(prototypes))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_feature_at_its_prototype_has_a_finite_gradient():
    u = torch.zeros(1, 3, requires_grad=True)
    similarities(u, torch.zeros(2, 3)).sum().backward()
    assert torch.isfinite(u.grad).all()


def test_the_less_sure_logits_alone_have_a_gradient_and_a_tie_has_none():
    labels = torch.tensor([0, 1])
    strong = torch.tensor([[3.0, 0.0], [0.0, 3.0]], requires_grad=True)
    weak = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    for order in ([strong, weak], [weak, strong]):
        strong.grad = weak.grad = None
        loss = weakest_loss(order, labels)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-6)
        assert not strong.grad.any()
        assert weak.grad.any()
    assert float(weakest_loss([weak, weak.clone()], labels).detach()) == 0.0
    assert weakest_loss([strong], labels) == torch.nn.functional.cross_entropy(strong, labels)


# --- rounds --------------------------------------------------------------------------------------------------------


def drive(method, batches):
    for batch in batches:
        method.step(batch)


@pytest.fixture
def asked(make_trainer):
    """A trainer whose clients have been asked, at the start of its first round."""

    def make(**settings):
        trainer = make_trainer(CMSFed, {"clients": 4, "per_round": 2, **settings})
        trainer.run.begin_epoch(0)
        drive(trainer.method, trainer.method.probe())
        trainer.method.probing = False
        trainer.method.forget_features()
        return trainer

    return make


def test_asking_serves_all_of_train_once_and_keeps_no_weights(make_trainer):
    trainer = make_trainer(CMSFed, {"clients": 4, "per_round": 2})
    method = trainer.method
    before = method.snapshot()
    trainer.run.begin_epoch(0)
    drive(method, method.probe())
    assert trainer.run.samples_served == trainer.run.num_train
    assert all(torch.equal(value, before[name]) for name, value in method.snapshot().items())
    for m in NAMES:
        assert method.moves(m).any(1).all()
        assert method.prototypes(m).any()
    assert len(set(method.imbalance_of_clients())) > 1


def class_means(method, clients):
    """Return {modality: class means (3, D)} over the samples of clients, under the net as it is."""
    found = {m: [[] for _ in range(3)] for m in NAMES}
    method.net.eval()
    for client in clients:
        for batch in client.run.train_in_order():
            for m, u in method.net.encode(batch.inputs).items():
                for row, label in zip(u.detach(), batch.labels.tolist(), strict=True):
                    found[m][label].append(row)
    method.net.train()
    return {m: torch.stack([torch.stack(rows).mean(0) for rows in classes]) for m, classes in found.items()}


def test_first_prototypes_are_class_means_over_all_samples_under_the_initial_weights(make_trainer):
    trainer = make_trainer(CMSFed, {"clients": 3, "per_round": 2})
    method = trainer.method
    expected = class_means(method, method.clients)
    trainer.run.begin_epoch(0)
    drive(method, method.probe())
    for m in NAMES:
        torch.testing.assert_close(method.prototypes(m), expected[m], atol=1e-5, rtol=1e-5)


def test_later_prototypes_are_of_those_who_trained_under_the_weights_that_each_had_learnt(asked):
    method = asked().method
    start, found, sizes = method.snapshot(), [], []
    for turn in method.turns(0):
        drive(method, method.train_turn(turn, 0, start))
        found.append(class_means(method, [turn.client])["video"])
        sizes.append(turn.client.run.train_labels.bincount(minlength=3)[:, None])
    method.refresh_prototypes()
    expected = sum(n * x for n, x in zip(sizes, found, strict=True)) / sum(sizes)
    torch.testing.assert_close(method.prototypes("video"), expected, atol=1e-5, rtol=1e-5)


def test_a_class_that_a_client_lacks_is_nobodys_nearest_and_harms_no_gradient(make_trainer):
    trainer = make_trainer(CMSFed, {"clients": 4, "per_round": 2, "concentration": 0.05})
    method = trainer.method
    assert any((client.run.train_labels.bincount(minlength=3) == 0).any() for client in method.clients)
    trainer.run.begin_epoch(0)
    drive(method, method.probe())
    assert all(torch.isfinite(method.moves(m)).all() for m in NAMES)
    trainer.run.check_finite()


def test_a_class_that_nobody_has_keeps_its_prototype(asked):
    method = asked().method
    before = method.prototypes("audio").clone()
    method.sums["audio"] += 6.0
    method.counts["audio"][0] = 3
    method.refresh_prototypes()
    after = method.prototypes("audio")
    assert (after[0] == 2.0).all()
    assert torch.equal(after[1:], before[1:])


def test_a_client_chosen_for_one_modality_moves_and_sends_nothing_of_the_other(asked):
    method = asked().method
    client, start = method.clients[1], method.snapshot()
    audio, moves = method.moves("audio").clone(), method.moves("video").clone()
    drive(method, method.train_turn(Turn(client, ("video",), 2), 0, start))
    for name, value in method.snapshot().items():
        if owner(name, NAMES) == "audio" and name.startswith("encoders"):
            assert torch.equal(value, start[name])
    assert torch.equal(method.moves("audio"), audio)
    changed = (method.moves("video") != moves).any(1)
    assert changed.tolist() == [False, True, False, False]
    assert torch.equal(method.moves("video")[1], flat_of(start) - flat(method.net.encoder("video")))
    assert not method.counts["audio"].any()
    assert method.counts["video"].sum() == client.run.num_train


def flat_of(state):
    parameters = [name for name in state if name.startswith("encoders.video") and name.endswith(("weight", "bias"))]
    return torch.cat([state[name].flatten() for name in parameters])


def test_the_loss_of_a_turn_is_by_its_modalities(asked):
    trainer = asked(alpha=0.7)
    method = trainer.method
    for modalities in (NAMES, ("audio",)):
        method.turn = Turn(method.clients[0], modalities, 1)
        method.begin_turn(0)
        batch = next(method.clients[0].run.train_batches(0))
        out = method.net(batch.inputs)
        logits = [-torch.cdist(out.features[m][:, None], method.prototypes(m)[None])[:, 0] for m in modalities]
        sure = [float(s.softmax(1).gather(1, batch.labels[:, None]).sum().detach()) for s in logits]
        weak = logits[sure.index(min(sure))]
        expected = sum(torch.nn.functional.cross_entropy(z, batch.labels) * w for z, w in ((out.fused, 1), (weak, 0.7)))
        assert float((method.loss(out, batch) - expected).detach()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("imbalance", "weak"), [([4.0, 4.0, 4.0, 4.0], "video"), ([0.2, 0.2, 0.2, 0.2], "audio")])
def test_the_modality_that_is_behind_globally_is_the_one_trained_alone(asked, imbalance, weak):
    method = asked(threshold=1.5).method
    method.get_buffer("imbalance").copy_(torch.tensor(imbalance))
    assert {turn.modalities for turn in method.turns(1)} == {(weak,)}
    method.get_buffer("imbalance").fill_(1.0)
    assert {turn.modalities for turn in method.turns(1)} == {NAMES}


def test_distances_are_euclidean_between_moves(asked):
    method = asked().method
    moves = method.moves("audio").double().numpy()
    expected = np.linalg.norm(moves[:, None] - moves, axis=2)
    np.testing.assert_allclose(method.distances("audio"), expected, rtol=1e-4, atol=1e-6)
    assert (np.diag(method.distances("audio")) == 0).all()


def test_accuracies_are_by_the_nearest_own_class_mean(asked):
    method = asked().method
    turn = Turn(method.clients[2], NAMES, 1)
    means = class_means(method, [turn.client])
    method.measure(turn)
    method.net.eval()
    right = dict.fromkeys(NAMES, 0)
    for batch in turn.client.run.train_in_order():
        for m, u in method.net.encode(batch.inputs).items():
            nearest = [int(((row - means[m]) ** 2).sum(1).argmin()) for row in u.detach()]
            right[m] += sum(a == b for a, b in zip(nearest, batch.labels.tolist(), strict=True))
    expected = max(right["audio"], 1) / max(right["video"], 1)
    assert method.imbalance_of_clients()[2] == pytest.approx(expected)


def test_choices_moves_and_prototypes_survive_interruption(make_trainer):
    settings = {"clients": 4, "per_round": 2, "threshold": 1.0}
    whole, first, second = (make_trainer(CMSFed, settings) for _ in range(3))
    history = train(whole)
    train(first, 1)
    second.load_state(first.state())
    assert train(second) == history[1:]
