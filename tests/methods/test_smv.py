"""SMV: the table of values, the number of copies, and what a copy trains."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from benchmark.methods._batches import take
from benchmark.methods.smv import SMV, THRESHOLDS, copies_by_modality, copies_by_sample

from benchmark.check.synthetic import Blobs
from benchmark.check.trained import same_state, train
from benchmark.data import Batch
from benchmark.model import Outputs
from benchmark.seeds import generator


class Oracle(torch.nn.Module):
    """A head that is right for chosen (sample, coalition) pairs; it sees who is present by whose features are zero."""

    def __init__(self, right):
        super().__init__()
        self.right = right

    def forward(self, features):
        present = frozenset(m for m, u in features.items() if u.any())
        verdict = torch.tensor([present in good for good in self.right]).long()
        return Outputs(features, {}, torch.nn.functional.one_hot(verdict, 2).float())


def values_of(make_trainer, right, count=2):
    """Return phi (N, M) of samples with label 1, given the coalitions that each is right for."""
    method = make_trainer(SMV, {}, dataset=Blobs(Blobs.Config(num_modalities=count))).method
    method.net.head = Oracle(right)
    inputs = {m: torch.randn(len(right), 6) for m in method.task.modalities}
    return method.eval().value_batch(Batch(inputs, torch.ones(len(right)).long(), torch.arange(len(right))))


AUDIO, VIDEO, BOTH = frozenset({"audio"}), frozenset({"video"}), frozenset({"audio", "video"})
TABLE = [
    ({BOTH}, (1.0, 1.0), (0, 0)),
    ({AUDIO, VIDEO, BOTH}, (1.0, 1.0), (0, 0)),
    ({AUDIO, BOTH}, (1.5, 0.5), (0, 1)),
    ({VIDEO, BOTH}, (0.5, 1.5), (1, 0)),
    ({AUDIO}, (0.5, -0.5), (1, 3)),
    ({VIDEO}, (-0.5, 0.5), (3, 1)),
    (set(), (0.0, 0.0), (2, 2)),
    ({AUDIO, VIDEO}, (0.0, 0.0), (2, 2)),
]


def test_values_and_copies_equal_the_complete_table(make_trainer):
    right, values, copies = zip(*TABLE, strict=True)
    ours = values_of(make_trainer, right)
    assert ours.tolist() == [list(row) for row in values]
    assert copies_by_sample(ours).tolist() == [list(row) for row in copies]


def test_values_of_three_are_mean_gains_and_sum_to_the_worth_of_all(make_trainer):
    names = ("audio", "video", "text")
    groups = [frozenset(m for i, m in enumerate(names) if 1 << i & code) for code in range(1, 8)]
    draw = torch.Generator().manual_seed(0)
    right = [{g for g in groups if torch.rand((), generator=draw) < 0.5} for _ in range(30)]
    ours = values_of(make_trainer, right, count=3)
    orders = list(permutations(names))
    for row, good in zip(ours.tolist(), right, strict=True):
        worth = {g: len(g) * (g in good) for g in [frozenset(), *groups]}
        for m, value in zip(names, row, strict=True):
            before = [frozenset(order[: order.index(m)]) for order in orders]
            assert value == pytest.approx(sum(worth[g | {m}] - worth[g] for g in before) / len(orders), abs=1e-6)
        assert sum(row) == pytest.approx(worth[groups[-1]], abs=1e-5)


def test_copies_grow_as_the_value_falls_and_none_is_made_at_full_value():
    values = torch.tensor([[2.0, 1.0], [5 / 6, 1 / 3], [0.0, -1.0]])
    assert copies_by_sample(values).tolist() == [[0, 0], [1, 2], [2, 3]]
    assert THRESHOLDS[0] > 0


def test_modality_level_copies_as_many_as_the_means_differ():
    values = torch.tensor([[1.3, 0.7]]).expand(300, 2)
    copies = copies_by_modality(values, 0.2, 0.5, generator(0))
    assert copies.sum(0).tolist() == [0, int(300 * 2 / 3 * 0.5 * 0.6)]
    assert copies.max() > 1  # drawn with replacement
    assert not copies_by_modality(torch.ones(300, 2), 0.2, 1.0, generator(0)).any()
    three = copies_by_modality(torch.tensor([[1.0, 0.4, 1.6]]).expand(100, 3), 0.2, 1.0, generator(0))
    assert three.sum(0).tolist() == [0, int(100 * 2 / 3 * 1.2), 0]


@pytest.fixture
def copying(make_trainer):
    """A method at the start of an epoch with copies, and two batches."""
    trainer = make_trainer(SMV, {"warmup": 0})
    trainer.run.begin_epoch(0)
    trainer.method.start_epoch(0)
    return trainer.method, *list(trainer.run.train_batches(0))[:2]


def test_pool_holds_the_batch_and_the_copies_of_the_other(copying):
    method, batch, other = copying
    served = method.run.samples_served
    pool, kept = method.mix(batch, other)
    number = len(batch.labels)
    assert torch.equal(pool.index[:number], batch.index)
    assert kept[:number].all()
    copied = torch.zeros_like(method.copies)
    for index, row in zip(pool.index[number:], kept[number:], strict=True):
        assert row.sum() == 1
        copied[index] += row
    expected = torch.zeros_like(copied)
    expected[other.index] = method.copies[other.index]
    assert torch.equal(copied, expected)
    assert len(pool.labels) > number
    assert method.run.samples_served == served + len(pool.labels) - number
    position = {int(index): at for at, index in enumerate(other.index)}
    for at in range(number, len(pool.labels)):
        source = position[int(pool.index[at])]
        assert pool.labels[at] == other.labels[source]
        assert torch.equal(pool.inputs["audio"][at], other.inputs["audio"][source])


def test_a_copy_gives_no_gradient_to_the_encoders_it_drops(copying):
    method, batch, _ = copying
    for keep, silent in ((torch.tensor([[1, 0]]), "video"), (torch.tensor([[0, 1]]), "audio")):
        method.train_on(batch, keep.expand(len(batch.labels), -1))
        for name, p in method.net.encoders.named_parameters():
            assert bool(p.grad.any()) is not name.startswith(silent) or "layers.0.bias" in name, name


def test_values_of_train_are_those_of_whole_passes_in_eval_mode(copying):
    method, *_ = copying
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    values = method.value_samples()
    assert same_state(before, method.net.state_dict())
    assert method.net.training
    batches = list(method.run.train_in_order())
    assert values.shape == (sum(len(batch.labels) for batch in batches), 2)
    method.net.eval()
    right = torch.cat([method.net(batch.inputs).fused.argmax(1) == batch.labels for batch in batches])
    assert torch.equal(values.sum(1), 2.0 * right)


@pytest.mark.parametrize("level", ["sample", "modality"])
def test_samples_of_an_epoch_are_those_of_train_and_the_copies(make_trainer, level):
    trainer = make_trainer(SMV, {"warmup": 1, "level": level})
    first, second = (trainer.run_epoch()[0] for _ in range(2))
    assert first["samples"] == trainer.run.num_train
    added = int(trainer.method.copies.sum())
    assert added > 0
    assert second["samples"] == trainer.run.num_train + added
    logged = sum(second["train"][f"copies/{m}"] for m in ("audio", "video"))
    assert logged == added


def test_steps_are_of_about_the_batch_size(make_trainer):
    trainer = make_trainer(SMV, {"warmup": 0})
    method = trainer.method
    sizes = []
    train_on = method.train_on
    method.train_on = lambda batch, kept: (sizes.append(len(kept)), train_on(batch, kept))[1]
    trainer.run_epoch()
    assert sum(sizes) == trainer.run.num_train + int(method.copies.sum())
    assert max(sizes) <= 24
    assert len(sizes) > trainer.run.steps_per_epoch


def test_copies_survive_interruption(make_trainer):
    settings = {"warmup": 1}
    whole, first, second = (make_trainer(SMV, settings) for _ in range(3))
    history = train(whole)
    train(first, 2)
    second.load_state(first.state())
    assert train(second) == history[2:]


def test_rows_may_be_taken_several_times():
    batch = Batch({"audio": torch.arange(3.0)}, torch.tensor([0, 1, 2]), torch.tensor([7, 8, 9]))
    taken = take(batch, torch.tensor([2, 2, 0]))
    assert (taken.inputs["audio"].tolist(), taken.labels.tolist(), taken.index.tolist()) == (
        [2, 2, 0],
        [2, 2, 0],
        [9, 9, 7],
    )
