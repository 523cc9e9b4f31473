"""Inception-I3D: the Inception network with its filters inflated to space-time (Carreira and Zisserman, CVPR 2017).

Modules have the names of the Kinetics checkpoints that are public for PyTorch (rgb_imagenet.pt, flow_imagenet.pt), so
that those load as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.encoders.config import EncoderConfig
from benchmark.encoders.weights import find_weights, load_weights
from benchmark.model import Encoder, draw_weights

Size = tuple[int, int, int]
"""Frames, height, width."""


class I3d(EncoderConfig):
    """Inception-I3D without its classifier: 1024 features."""

    reads = {4: "a clip (C, T, H, W)"}
    kind: Literal["i3d"] = "i3d"
    weights: str = ""
    """Empty: random weights (`draw_weights`). Else a public checkpoint, by its path or its name in the weights folder.
    Where the number of input channels is not the file's, `adapt_stem` makes the first convolution: Kinetics weights of
    RGB or flow can so be used for depth. They were trained on inputs scaled to [-1, 1]."""

    def make(self, shape: tuple[int, ...]) -> I3dEncoder:
        encoder = I3dEncoder(shape[0])
        for path in self.weight_files():
            load_weights(encoder, path, self.where, stem="Conv3d_1a_7x7.conv3d.weight", unused="logits.")
        return encoder

    def weight_files(self) -> list[Path]:
        return [find_weights(self.weights, self.where)] if self.weights else []


def pad_same(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """Pad (B, C, T, H, W) with zeros so that a filter gives ceil(size / stride) outputs; the odd zero comes last.

    That is TensorFlow's "same", which PyTorch's layers offer for stride 1 only.
    """
    pads: list[int] = []
    for size, width, step in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // step) - 1) * step + width - size, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x


class Unit(nn.Module):
    """Convolution with "same" padding, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        inside = kernel // 2 if stride == 1 else 0  # the convolution's own padding costs no copy
        self.conv3d = nn.Conv3d(before, after, kernel, stride, inside, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride != (1, 1, 1):
            x = pad_same(x, self.kernel, self.stride)
        return F.relu(self.bn(self.conv3d(x)))


class Pool(nn.Module):
    """Maximum with "same" padding. Its inputs come from ReLU, so that padding with zeros changes no maximum."""

    def __init__(self, kernel: Size, stride: Size) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """An Inception module: four branches, concatenated."""

    def __init__(self, before: int, one: int, three: tuple[int, int], five: tuple[int, int], pooled: int) -> None:
        """Build the four branches.

        Args:
            before: input channels.
            one: channels of the 1x1x1 branch.
            three: channels of the second branch, before and after its 3x3x3 filters.
            five: the same of the third, which had 5x5 filters in the 2-d Inception and has 3x3x3 here.
            pooled: channels of the branch that pools first.
        """
        super().__init__()
        self.b0 = Unit(before, one)
        self.b1a, self.b1b = Unit(before, three[0]), Unit(*three, kernel=3)
        self.b2a, self.b2b = Unit(before, five[0]), Unit(*five, kernel=3)
        self.b3a, self.b3b = Pool((3, 3, 3), (1, 1, 1)), Unit(before, pooled)

    def forward(self, x: Tensor) -> Tensor:
        branches = (self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x)))
        return torch.cat(branches, 1)


class I3dEncoder(Encoder):
    """Features of clips, averaged over all of space and time.

    The released PyTorch network ends in a pool of fixed size (8 of the last layer's frames, one for every 8 of the
    input) of which only the first window is read: with 80 frames, as NVGesture's test clips have, the last 16
    count for nothing. Here every frame counts; with 64 frames of 224 x 224 the two are equal.
    """

    dim = 1024

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = {
            "Conv3d_1a_7x7": Unit(channels, 64, kernel=7, stride=2),
            "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit(64, 64),
            "Conv3d_2c_3x3": Unit(64, 192, kernel=3),
            "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2)),
            "Mixed_3b": Mixed(192, 64, (96, 128), (16, 32), 32),
            "Mixed_3c": Mixed(256, 128, (128, 192), (32, 96), 64),
            "MaxPool3d_4a_3x3": Pool((3, 3, 3), (2, 2, 2)),
            "Mixed_4b": Mixed(480, 192, (96, 208), (16, 48), 64),
            "Mixed_4c": Mixed(512, 160, (112, 224), (24, 64), 64),
            "Mixed_4d": Mixed(512, 128, (128, 256), (24, 64), 64),
            "Mixed_4e": Mixed(512, 112, (144, 288), (32, 64), 64),
            "Mixed_4f": Mixed(528, 256, (160, 320), (32, 128), 128),
            "MaxPool3d_5a_2x2": Pool((2, 2, 2), (2, 2, 2)),
            "Mixed_5b": Mixed(832, 256, (160, 320), (32, 128), 128),
            "Mixed_5c": Mixed(832, 384, (192, 384), (48, 128), 128),
        }
        for name, layer in layers.items():
            self.add_module(name, layer)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Encode clips (B, C, T, H, W)."""
        for layer in self.children():
            x = layer(x)
        return x.mean((2, 3, 4))
