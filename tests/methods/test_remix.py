"""Data Remixing: the golden confidences, who is kept for what, and what one batch may move."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmark.methods._batches import join, take
from benchmark.methods.remix import Remix, confidence, last_least

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import train
from benchmark.data import Batch


def test_confidence_equals_golden_numbers():
    uniform, half = torch.zeros(6), torch.tensor([0.0, 0.0, -1e4, -1e4, -1e4, -1e4])
    sure = torch.tensor([0.0, -1e4, -1e4, -1e4, -1e4, -1e4])
    values = confidence(torch.stack([uniform, half, sure]))
    assert values.tolist() == pytest.approx([0.0, 1.584963, 2.584963], abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_confidence_equals_an_independent_calculation(seed):
    logits = np.random.default_rng(seed).normal(0, 3, (9, 5))
    weights = np.exp(logits)
    chances = weights / weights.sum(1, keepdims=True)
    expected = [sum(p * np.log2(p / 0.2) for p in row) for row in chances]
    np.testing.assert_allclose(confidence(torch.from_numpy(logits)), expected, atol=1e-6)


@pytest.fixture
def remixing(make_trainer):
    """A trainer at the start of an epoch without warm-up, and the batches that it trains on, by modality."""

    def begin(count=2, **settings):
        data = Blobs(Blobs.Config(num_modalities=count))
        trainer = make_trainer(Remix, {"warmup": 0, **settings}, dataset=data)
        trained: list[tuple[str, Batch]] = []
        train_on = trainer.method.train_on
        trainer.method.train_on = lambda m, batch: (trained.append((m, batch)), train_on(m, batch))[1]
        return trainer, trained

    return begin


@pytest.mark.parametrize("count", [2, 3])
def test_each_sample_is_kept_for_its_least_confident_modality(remixing, count):
    trainer, _ = remixing(count)
    method = trainer.method
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    kept = method.least_confident()
    assert all(torch.equal(value, before[name]) for name, value in method.net.state_dict().items())
    assert method.net.training
    method.net.eval()
    for batch in trainer.run.train_in_order():
        logits = method.net(batch.inputs).unimodal
        for row, index in enumerate(batch.index):
            values = [float(confidence(z)[row].detach()) for z in logits.values()]
            assert kept[index] == values.index(min(values))


@pytest.mark.parametrize(("count", "variant"), [(2, "paper"), (3, "paper"), (2, "released")])
def test_every_sample_is_trained_on_once_in_batches_of_one_modality(remixing, count, variant):
    trainer, trained = remixing(count, variant=variant)
    line, _ = trainer.run_epoch()
    names = list(trainer.method.task.modalities)
    indices = torch.cat([batch.index for _, batch in trained])
    left_over = trainer.run.num_train - len(indices)
    assert left_over <= count
    assert len(indices.unique()) == len(indices)
    for modality, batch in trained:
        assert (trainer.method.kept[batch.index] == names.index(modality)).all()
        assert 2 <= len(batch.labels) <= 17
    full = [len(batch.labels) for _, batch in trained if len(batch.labels) == 16]
    assert len(full) >= len(trained) - count
    assert line["samples"] == trainer.run.num_train
    shares = [line["train"][f"kept/{m}"] for m in names]
    assert sum(shares) == pytest.approx(1)
    assert all(share > 0 for share in shares)


def test_released_trains_the_last_modality_before_the_first(remixing):
    trainer, trained = remixing(variant="released")
    trainer.run_epoch()
    order = [modality for modality, _ in trained]
    assert order == sorted(order, reverse=True)
    assert set(order) == {"audio", "video"}


def test_by_default_batches_of_modalities_mix(remixing):
    trainer, trained = remixing()
    method = trainer.method
    method.least_confident = lambda: torch.arange(trainer.run.num_train) % 2
    trainer.run_epoch()
    order = [modality for modality, _ in trained]
    assert order not in (sorted(order), sorted(order, reverse=True))


def test_a_lone_sample_is_never_left_by_full_batches(remixing):
    trainer, trained = remixing()
    method = trainer.method
    trainer.run.begin_epoch(0)
    method.start_epoch(0)
    for count, expected in ((16, []), (1, []), (1, [16]), (14, [16]), (2, [16, 16])):
        some = next(trainer.run.train_batches(0))
        method.kept[some.index] = 0
        method.full = 16
        method.gather("audio", take(join([some, some]), slice(count)))
        assert [len(batch.labels) for _, batch in trained] == expected
    method.flush("audio")
    assert [len(batch.labels) for _, batch in trained] == [16, 16, 2]


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_gradients_do_not_depend_on_what_is_masked(remixing, variant):
    trainer, _ = remixing(variant=variant)
    method = trainer.method
    batch = next(trainer.run.train_batches(0))
    other = Batch({**batch.inputs, "video": torch.randn_like(batch.inputs["video"])}, batch.labels, batch.index)
    start = {name: value.clone() for name, value in method.net.state_dict().items()}
    gradients = []
    for given in (batch, other):
        torch.manual_seed(0)
        method.net.load_state_dict(start)
        method.optimizer.zero_grad()
        method.train_on("audio", given)
        gradients.append({n: p.grad.clone() for n, p in method.net.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    masked = [name for name in gradients[0] if name.startswith("encoders.video")]
    assert bool(masked) is (variant == "released")
    assert not any(gradients[0][name].any() for name in masked)
    assert gradients[0]["encoders.audio.layers.0.weight"].any()
    assert not gradients[0]["head.joint.slices.video"].any()


def test_masked_encoders_rest_by_default_and_move_in_released(remixing):
    for variant in ("paper", "released"):
        trainer, _ = remixing(variant=variant)
        method = trainer.method
        batch = next(trainer.run.train_batches(0))
        method.train_on("video", batch)  # gives video momentum
        before = {name: value.clone() for name, value in method.net.encoders["video"].state_dict().items()}
        method.train_on("audio", batch)
        after = method.net.encoders["video"].state_dict()
        moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
        if variant == "paper":
            assert not moved
        else:
            assert {"layers.0.weight", "layers.1.running_mean"} <= moved


def test_loss_is_that_of_the_fused_and_the_kept_logits(remixing):
    trainer, _ = remixing(gamma=0.7)
    method = trainer.method.eval()
    batch = next(trainer.run.train_batches(0))
    u = method.net.encode(batch.inputs)["audio"]
    joint, own = method.net.head.joint, method.net.head.auxiliary.layers["audio"]
    fused = u @ joint.slices["audio"].T + joint.bias  # the masked modality adds its share of the bias
    chosen = [z.log_softmax(1).gather(1, batch.labels[:, None]).mean() for z in (fused, own(u))]
    trainer.run.begin_epoch(0)
    method.train_on("audio", batch)
    assert trainer.run.means()["loss"] == pytest.approx(float(-(chosen[0] + 0.7 * chosen[1]).detach()), abs=1e-5)


@pytest.mark.parametrize("settings", [{"warmup": 1}, {"warmup": 1, "variant": "released"}])
def test_remixing_survives_interruption(make_trainer, settings):
    whole, first, second = (make_trainer(Remix, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert train(second) == history[2:]


def test_of_equally_sure_modalities_the_last_is_kept_as_in_the_released_code():
    assert last_least(torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 0.5]])).tolist() == [1, 0, 1]
    assert last_least(torch.tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 2.0]])).tolist() == [2, 1]
