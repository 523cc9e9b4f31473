"""Cost: operations and parameters of a network, counted by hand."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import nn

from benchmark.data import Modality, TaskSpec
from benchmark.method import Method, Reference
from benchmark.model import Encoder, concat_net
from benchmark.train.cost import flops, num_parameters, peak_memory


class Picture(Encoder):
    """A convolution of 3 to 4 channels, 5x5, on 9x7 without padding: (B, 3, 9, 7) -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.dim = 4
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 5), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout())

    def forward(self, x):
        return self.layers(x).mean((2, 3))


class Vector(Encoder):
    def __init__(self):
        super().__init__()
        self.dim = 6
        self.layer = nn.Linear(10, 6)

    def forward(self, x):
        return self.layer(x)


class Plain(Method):
    reference = Reference("made up")
    seen: ClassVar[list[int]] = []

    def build_net(self, task):
        return concat_net(task)

    def predict(self, inputs):
        self.seen.append(len(inputs["picture"]))
        return super().predict(inputs)


CONV = 2 * (3 * 5 * 5) * 4 * (5 * 3)
"""Two for each multiplication and addition: 75 of them for each of 4 channels at each of 5 x 3 places."""
LINEAR = 2 * 10 * 6
HEAD = 2 * (4 + 6) * 8


@pytest.fixture
def method():
    modalities = {"picture": Modality((3, 9, 7), Picture), "vector": Modality((10,), Vector)}
    torch.manual_seed(0)
    return Plain(Plain.Config(), TaskSpec(modalities, [str(k) for k in range(8)]))


@pytest.mark.parametrize("batch", [1, 5])
def test_flops_are_those_counted_by_hand_for_one_sample(method, batch):
    inputs = {"picture": torch.rand(batch, 3, 9, 7), "vector": torch.rand(batch, 10)}
    Plain.seen.clear()
    assert flops(method, inputs) == CONV + LINEAR + HEAD
    assert Plain.seen == [1]


@pytest.mark.parametrize("training", [True, False])
def test_counting_leaves_mode_statistics_gradients_and_the_generator_alone(method, training):
    method.train(training)
    before = {name: x.clone() for name, x in method.state_dict().items() if isinstance(x, torch.Tensor)}
    generator = torch.get_rng_state()
    flops(method, {"picture": torch.rand(2, 3, 9, 7, generator=torch.Generator()), "vector": torch.zeros(2, 10)})
    assert method.training is training
    assert all(torch.equal(x, method.state_dict()[name]) for name, x in before.items())
    assert all(p.grad is None for p in method.parameters())
    assert torch.equal(generator, torch.get_rng_state())


def test_the_mode_comes_back_when_predict_raises(method):
    method.train()
    with pytest.raises(RuntimeError):
        flops(method, {"picture": torch.rand(1, 3, 9, 7), "vector": torch.rand(1, 11)})
    assert method.training


def test_parameters_are_counted_by_hand_frozen_ones_too_and_shared_ones_once(method):
    expected = 4 * 75 + 4 + 2 * 4 + 10 * 6 + 6 + (4 + 6) * 8 + 8
    assert num_parameters(method) == expected
    method.requires_grad_(False)
    assert num_parameters(method) == expected
    layer = nn.Linear(3, 3)
    assert num_parameters(nn.ModuleList([layer, layer])) == 12


def test_peak_memory_is_of_this_process_and_grows_with_what_it_holds():
    before = peak_memory(torch.device("cpu"))
    assert set(before) == {"process"}
    assert before["process"] > 50e6  # torch alone
    held = torch.ones(before["process"] // 4 + 10**7)  # four bytes each: more than the peak so far
    after = peak_memory(torch.device("cpu"))["process"]
    assert after >= held.nbytes > before["process"]
