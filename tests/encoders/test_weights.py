"""Weights: where they are looked for, what a wrong file is told, how a first convolution takes other channels."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from benchmark.encoders.i3d import I3d
from benchmark.encoders.resnet import ResNet
from benchmark.encoders.weights import (
    adapt_stem,
    digest_weights,
    find_torchvision_weights,
    find_weights,
    load_weights,
    read_weights,
    weights_folder,
)
from benchmark.errors import UserError
from benchmark.model import draw_weights


def told(call, *arguments, **settings) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **settings)
    return str(caught.value)


def net(channels: int = 3) -> nn.Sequential:
    """A small module whose first convolution is `0.weight`."""
    return nn.Sequential(nn.Conv2d(channels, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(5, 2))


def load(module: nn.Module, path: Path) -> None:
    load_weights(module, path, "encoder test", stem="0.weight", unused="fc.")


@pytest.fixture
def saved(tmp_path):
    """Write tensors to a file and return its path."""

    def save(state, **options) -> Path:
        torch.save(state, tmp_path / "net.pt", **options)
        return tmp_path / "net.pt"

    return save


# --- another number of channels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("axes", [2, 3])
def test_equal_channels_get_the_response_that_they_got(channels, axes):
    double = {"dtype": torch.float64}
    weight, plane = torch.randn(6, 3, *[3] * axes, **double), torch.randn(2, 1, *[7] * axes, **double)
    convolve = {2: F.conv2d, 3: F.conv3d}[axes]
    adapted = adapt_stem(weight, channels)
    assert adapted.shape == (6, channels, *[3] * axes)
    before = convolve(plane.expand(-1, 3, *plane.shape[2:]), weight)
    after = convolve(plane.expand(-1, channels, *plane.shape[2:]), adapted)
    torch.testing.assert_close(after, before)


def test_every_new_channel_gets_the_scaled_mean():
    weight = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    assert adapt_stem(weight, 1).flatten().tolist() == [9.0]
    assert adapt_stem(weight, 2).flatten().tolist() == [4.5, 4.5]
    assert adapt_stem(weight[:, :2], 3).flatten().tolist() == [1.0, 1.0, 1.0]
    assert adapt_stem(weight, 3) is weight


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_loading_adapts_the_first_convolution_and_nothing_else(saved, channels):
    source, target = net(), net(channels)
    load(target, saved(source.state_dict()))
    assert torch.equal(target[0].weight, adapt_stem(source[0].weight, channels))
    assert torch.equal(target[2].weight, source[2].weight)


# --- drawing -------------------------------------------------------------------------------------------------------


def test_weights_are_drawn_as_the_field_draws_them():
    layers = nn.Sequential(nn.Conv2d(8, 64, 5), nn.Conv1d(8, 64, 9), nn.BatchNorm2d(7), nn.Linear(300, 100))
    for layer in layers:
        nn.init.constant_(layer.weight, 7.0)
        nn.init.constant_(layer.bias, 7.0)
    torch.manual_seed(0)
    draw_weights(layers)
    two, one, norm, linear = layers
    assert two.weight.std().item() == pytest.approx((2 / (64 * 25)) ** 0.5, rel=0.05)
    assert one.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    assert linear.weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.05)
    assert norm.weight.eq(1).all()
    assert all(layer.bias.eq(0).all() for layer in layers)


# --- files ---------------------------------------------------------------------------------------------------------


def test_names_and_shapes_that_do_not_fit_are_all_told(saved):
    state = net().state_dict()
    state["extra.weight"] = torch.zeros(1)
    state["2.weight"] = torch.zeros(3, 5)
    del state["1.running_mean"]
    message = told(load, net(), saved(state))
    assert "expected weights named 1.running_mean, got none of these" in message
    assert "expected no other weights, got extra.weight" in message
    assert "expected the shapes 2.weight (2, 5), got 2.weight (3, 5)" in message
    assert "net.pt" in message


def test_a_first_convolution_of_other_size_is_told(saved):
    state = net().state_dict() | {"0.weight": torch.zeros(4, 3, 5, 5)}
    assert "expected the shapes 0.weight (4, 1, 3, 3), got 0.weight (4, 1, 5, 5)" in told(load, net(1), saved(state))
    assert "got 0.weight (4,)" in told(load, net(1), saved(state | {"0.weight": torch.zeros(4)}))


def test_a_long_list_of_names_is_cut_and_counted(saved):
    message = told(load, net(), saved({f"layer{i}": torch.zeros(1) for i in range(30)}))
    assert "layer4 ... (30 in all)" in message
    assert "layer5" not in message


def test_a_classifier_and_missing_batch_counts_are_passed_over(saved):
    state = {name: x for name, x in net().state_dict().items() if not name.endswith("num_batches_tracked")}
    target = net()
    load(target, saved(state | {"fc.weight": torch.zeros(1000, 3)}))
    assert all(torch.equal(target.state_dict()[name], x) for name, x in state.items())


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("cut", [0, 1, 100, -1, -500])
def test_a_truncated_file_is_told(saved, cut, is_zip):
    path = saved(net().state_dict(), _use_new_zipfile_serialization=is_zip)
    path.write_bytes(path.read_bytes()[:cut])
    message = told(read_weights, path, "encoder test")
    assert f"encoder test from {path}: expected a file of tensors by name" in message
    assert f"{path.stat().st_size:,} bytes that cannot be read" in message


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("code in a file of weights was run",)


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"epoch": 3, "state": {}}, torch.zeros(2), {"a": Explosive()}])
def test_anything_but_tensors_by_name_is_refused(saved, content):
    assert "expected a file of tensors by name" in told(read_weights, saved(content), "encoder test")


def test_a_pickle_is_not_run(tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(pickle.dumps({"a": Explosive()}, protocol=2))
    assert "cannot be read" in told(read_weights, path, "encoder test")


# --- where they are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "name", "prefix"), [(18, "IMAGENET1K_V1", "resnet18-"), (50, "IMAGENET1K_V2", "resnet50-")]
)
def test_missing_torchvision_weights_are_told_with_file_folder_and_address(depth, name, prefix):
    from torchvision.models import get_model_weights

    url = get_model_weights(f"resnet{depth}")[name].url
    message = told(ResNet(depth=depth, weights=name).weight_files)
    assert prefix in Path(url).name
    assert all(part in message for part in (Path(url).name, str(weights_folder()), url, "encoder resnet"))


def test_torchvision_weights_are_read_from_the_weights_folder():
    from torchvision.models import get_model_weights, resnet18

    source = resnet18()
    path = weights_folder() / Path(get_model_weights("resnet18")["IMAGENET1K_V1"].url).name
    path.parent.mkdir(parents=True)
    torch.save(source.state_dict(), path)
    config = ResNet(weights="IMAGENET1K_V1")
    assert config.weight_files() == [path]
    encoder = config.build((3, 32, 32)).eval()
    source.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(encoder(x), source.eval()(x))


def test_an_unknown_name_of_weights_tells_the_nearest():
    message = told(find_torchvision_weights, "resnet50", "IMAGENET1K_V3", "encoder resnet")
    assert "Did you mean 'IMAGENET1K_V" in message
    assert str(weights_folder()) in message


def test_a_file_is_found_by_path_or_by_name_in_the_weights_folder(tmp_path):
    weights_folder().mkdir(parents=True)
    for path in (tmp_path / "here.pt", weights_folder() / "there.pt"):
        path.write_bytes(b"")
    for find in (find_weights, lambda *given: find_torchvision_weights("resnet18", *given)):
        assert find(str(tmp_path / "here.pt"), "encoder") == tmp_path / "here.pt"
        assert find("there.pt", "encoder") == weights_folder() / "there.pt"
        assert str(weights_folder()) in told(find, "nowhere.pt", "encoder")
        assert "expected a file of weights" in told(find, str(tmp_path), "encoder")


def test_from_scratch_needs_no_file():
    assert ResNet().weight_files() == I3d().weight_files() == []


def test_the_digest_follows_content_and_name_and_not_the_folder(tmp_path):
    def write(folder: str, name: str, content: bytes) -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    first = digest_weights([write("a", "net.pt", b"one")])
    assert digest_weights([write("b", "net.pt", b"one")]) == first
    assert digest_weights([write("a", "other.pt", b"one")]) != first
    assert digest_weights([write("a", "net.pt", b"another")]) != first
    assert digest_weights([]) == hashlib.sha256(b"").hexdigest()[:16]
    two = [tmp_path / "a" / "net.pt", tmp_path / "b" / "net.pt"]
    assert digest_weights(two) == digest_weights(two[::-1]) != digest_weights(two[:1])
