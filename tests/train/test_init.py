"""How weights start: `init: released` draws every random one as the literature's audio-visual scripts do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from benchmark.data import Modality, TaskSpec
from benchmark.model import ConcatHead, Encoder, SelfDrawn, SharedOutputHead, draw_weights
from benchmark.plan.sweep import Sweep, plan
from benchmark.protocol import Recipe, Sgd
from benchmark.registry import METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import build_method

CPU = torch.device("cpu")
WIDTH, CLASSES = 512, 6  # of CREMA-D with ResNet18


class Wide(Encoder):
    def __init__(self):
        super().__init__()
        self.dim = WIDTH
        self.layer = nn.Linear(4, WIDTH)

    def forward(self, x):
        return self.layer(x)


class Loaded(Wide):
    pretrained = True


def built(method, start="default", encoder=Wide, **config):
    task = TaskSpec({m: Modality((4,), encoder) for m in ("audio", "video")}, [str(k) for k in range(CLASSES)])
    kind = METHODS.find(method).load()
    config = {**kind.expand(task)[0], **config}
    recipe = Recipe(epochs=2, batch_size=4, optimizer=Sgd(lr=0.1), init=start)
    return build_method(kind, parse_settings(kind.Config, config, method), task, recipe, 0, CPU)


def spread(*weights):
    return torch.cat([weight.detach().flatten() for weight in weights]).std().item()


def xavier(inputs, outputs):
    return math.sqrt(2 / (inputs + outputs))


@pytest.mark.parametrize(("init", "expected"), [("default", 0.018), ("released", 0.044)])
def test_concats_head_starts_as_one_layer(init, expected):
    head = built("concat", init).net.head
    assert spread(*head.slices.values()) == pytest.approx(expected, rel=0.03)
    assert head.bias.abs().max() > 0 if init == "default" else head.bias.abs().max() == 0


@pytest.mark.parametrize(
    ("config", "init", "hidden", "output"),
    [
        ({}, "default", 0.0255, 0.036),
        ({}, "released", 0.051, 0.087),
        ({"variant": "released"}, "default", 0.051, 0.087),
        ({"init": "released"}, "default", 0.051, 0.087),
    ],
)
def test_augs_classifiers_start_alike_the_first_and_those_that_are_added(config, init, hidden, output):
    method = built("aug", init, **config)
    head = method.net.head
    assert isinstance(head, SharedOutputHead)
    method.grow("audio")
    bank = head.bank("audio")
    added = bank.frozen_weight if len(bank.frozen_weight) else bank.weight[256:]
    assert spread(bank.weight[:256]) == pytest.approx(hidden, rel=0.03)
    assert spread(added) == pytest.approx(hidden, rel=0.03)
    assert spread(head.output.weight) == pytest.approx(output, rel=0.05)


def test_encoders_too_unless_they_are_pretrained_and_alike_for_every_method():
    nets = {
        (name, init): built(name, init).net.encoders for name in ("concat", "aug") for init in ("default", "released")
    }
    first, second = nets["concat", "released"]["audio"].layer, nets["aug", "released"]["audio"].layer
    assert spread(first.weight) == pytest.approx(xavier(4, WIDTH), rel=0.05)
    assert first.bias.abs().max() == 0
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, nets["concat", "released"]["video"].layer.weight)
    kept = built("concat", "released", Loaded).net.encoders["audio"].layer.weight
    assert torch.equal(kept, nets["concat", "default"]["audio"].layer.weight)


SIMPLE = sorted(name for name in METHODS.known() if name not in {"federated", "fedcmi", "cmsfed"})


@pytest.mark.parametrize("name", SIMPLE)
def test_every_linear_layer_of_every_method_is_drawn(name):
    method = built(name, "released")
    for path, layer in method.named_modules():
        if isinstance(layer, nn.Linear) and layer.weight.numel() > 1000:
            expected = xavier(layer.in_features, layer.out_features)
            assert spread(layer.weight) == pytest.approx(expected, rel=0.15), path
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            assert layer.bias.abs().max() == 0, path


@pytest.mark.parametrize("name", SIMPLE)
def test_what_is_no_layer_of_torch_says_how_it_is_drawn_or_is_known_to_start_otherwise(name):
    known = {"arm": {"Subspace"}, "channel": {"ExchangeHead"}, "reconboost": {"Ensemble"}}  # shares, rates, a basis
    raw = {
        type(module).__name__
        for module in built(name).modules()
        if not type(module).__module__.startswith("torch.")
        and not isinstance(module, SelfDrawn)
        and any(True for _ in module.parameters(recurse=False))
    }
    assert raw <= known.get(name, set())


def test_drawing_leaves_what_it_is_told_to_leave():
    net = nn.Sequential(Wide(), ConcatHead({"audio": 8}, 3))
    before = [p.clone() for p in net[0].parameters()]
    draw_weights(net, but=Encoder)
    assert all(torch.equal(old, new) for old, new in zip(before, net[0].parameters(), strict=True))
    assert net[1].bias.abs().max() == 0


def test_the_default_leaves_no_trace_in_a_runs_spec_and_id(blobs):
    def run(*settings):
        return plan(Sweep(["concat"], [blobs], [0], settings=settings)).runs[0]

    assert "init" not in run().to_yaml()
    assert run().id == run("protocol.init=default").id != run("protocol.init=released").id
    assert "init: released" in run("protocol.init=released").to_yaml()
