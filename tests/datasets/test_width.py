"""Width: a factor on an encoder's channels; without it the network is what it always was, bit for bit."""

from __future__ import annotations

import pytest
import torch
from benchmark.datasets.avletters import AVLetters
from benchmark.datasets.dialpad import Dialpad
from benchmark.datasets.dialpad3 import Dialpad3
from torch import nn

from benchmark.errors import UserError
from benchmark.plan.sweep import open_dataset
from benchmark.seeds import seed_of
from benchmark.settings import parse_settings

KINDS = {"dialpad": Dialpad, "dialpad3": Dialpad3, "avletters": AVLetters}
LAYERS = {
    ("dialpad", "image"): [(nn.Conv2d, 1, 16, 3), (nn.Conv2d, 16, 32, 3), (nn.Conv2d, 32, 64, 3)],
    ("dialpad", "audio"): [(nn.Conv2d, 1, 16, 3), (nn.Conv2d, 16, 32, 3), (nn.Conv2d, 32, 64, 3),
                           (nn.Conv2d, 64, 64, 3)],
    ("avletters", "audio"): [(nn.Conv1d, 26, 64, 5), (nn.Conv1d, 64, 64, 3), (nn.Conv1d, 64, 128, 3)],
    ("avletters", "video"): [(nn.Conv2d, 1, 8, 3), (nn.Conv2d, 8, 16, 3), (nn.Conv2d, 16, 16, 3),
                             (nn.Conv1d, 192, 64, 3), (nn.Conv1d, 64, 64, 3), (nn.Conv1d, 64, 128, 3)],
}  # fmt: skip
"""Kind, channels before and after, and kernel of each convolution before there was a width, typed here once more."""


def make(name, **config):
    kind = KINDS[name]
    return kind(parse_settings(kind.Config, config, f"data set {name}"))


def encoders(name, **config):
    torch.manual_seed(0)
    return make(name, **config).task.build_encoders()


def convolutions(encoder):
    return [layer for layer in encoder.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d)]


@pytest.mark.parametrize(("name", "modality"), LAYERS)
def test_by_default_the_initial_weights_are_bitwise_those_of_the_fixed_network(name, modality):
    torch.manual_seed(0)
    torch.manual_seed(seed_of(torch.initial_seed(), "encoder", modality))
    expected = [
        kind(before, after, kernel, bias=False).weight for kind, before, after, kernel in LAYERS[name, modality]
    ]
    for config in ({}, {"width": {}}, {"width": {modality: 1.0}}):
        encoder = encoders(name, **config)[modality]
        found = [layer.weight for layer in convolutions(encoder)]
        assert len(found) == len(expected)
        assert all(map(torch.equal, found, expected))
        shapes = [tuple(p.shape) for p in encoder.parameters()]
        assert shapes == [shape for w in expected for shape in (tuple(w.shape), (len(w),), (len(w),))]
        assert encoder.dim == len(expected[-1])


@pytest.mark.parametrize(("name", "modality"), LAYERS)
@pytest.mark.parametrize("factor", [0.001, 0.3, 2])
def test_a_factor_multiplies_every_width_of_its_modality_and_no_other(name, modality, factor):
    plain, wide = encoders(name), encoders(name, width={modality: factor})
    widths = [after for _, _, after, _ in LAYERS[name, modality]]
    scaled = [max(round(width * factor), 1) for width in widths]
    assert [layer.out_channels for layer in convolutions(wide[modality])] == scaled
    assert wide[modality].dim == scaled[-1]
    shape = make(name).task.modalities[modality].shape
    assert wide[modality](torch.rand(2, *shape)).shape == (2, scaled[-1])
    for other in set(plain) - {modality}:
        pairs = zip(plain[other].parameters(), wide[other].parameters(), strict=True)
        assert all(torch.equal(one, two) for one, two in pairs)


def test_dialpad3_scales_what_it_shares_with_dialpad():
    wide = encoders("dialpad3", width={"image": 0.5})
    assert (wide["image"].dim, wide["audio"].dim, wide["segments"].dim) == (32, 64, 64)


@pytest.mark.parametrize(
    ("name", "modality", "known"),
    [("dialpad", "imgae", "'image'"), ("avletters", "vidoe", "'video'"), ("dialpad3", "text", "audio, image")],
)
def test_an_unknown_modality_is_refused_with_the_known_ones(name, modality, known):
    with pytest.raises(UserError, match=f"data set {name}, width: expected .*, got '{modality}'.*{known}"):
        make(name, width={modality: 2.0})


@pytest.mark.parametrize("factor", [0, -1])
def test_a_factor_is_above_zero(factor):
    with pytest.raises(UserError, match="greater than 0"):
        make("dialpad", width={"image": factor})


def test_a_width_can_be_typed():
    for dataset in (
        open_dataset('dialpad[width={"image":0.5}]'),
        open_dataset("dialpad", settings=["dialpad.width.image=0.5"]),
    ):
        assert {m: encoder.dim for m, encoder in dataset.task.build_encoders().items()} == {"image": 32, "audio": 64}
