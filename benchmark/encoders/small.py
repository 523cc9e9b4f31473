"""Small encoders for the sets that a CPU can train: pictures, sounds, sequences of features, features.

Shapes: B batch, C channels, T frames, D width.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.encoders.config import EncoderConfig
from benchmark.model import Encoder, conv_block, draw_weights

Dropout = Annotated[float, Field(ge=0, lt=1)]
"""Share of values set to zero in training."""


class ConvNet(EncoderConfig):
    """A plain convolutional network: each stage halves the size and doubles the channels; the mean over the rest."""

    reads = {2: "a sequence (C, T)", 3: "an image (C, H, W)"}
    kind: Literal["conv"] = "conv"
    width: int = Field(default=32, ge=1)
    """Channels of the first stage."""
    stages: int = Field(default=4, ge=1)
    """`width * 2 ** (stages - 1)` features come out."""
    blocks: int = Field(default=1, ge=1)
    """Convolutions of a stage."""
    dropout: Dropout = 0.2
    """On the features."""

    def make(self, shape: tuple[int, ...]) -> ConvEncoder:
        return ConvEncoder(self, shape)


class ConvEncoder(Encoder):
    """Features of images (B, C, H, W), or of sequences (B, C, T) convolved over time."""

    def __init__(self, config: ConvNet, shape: tuple[int, ...]) -> None:
        super().__init__()
        kind = nn.Conv1d if len(shape) == 2 else nn.Conv2d
        layers: list[nn.Module] = []
        before = shape[0]
        for stage in range(config.stages):
            after = config.width * 2**stage
            layers += [conv_block(kind, before, after, stride=2)]
            layers += [conv_block(kind, after, after) for _ in range(config.blocks - 1)]
            before = after
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(config.dropout)
        self.dim = before
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.dropout(self.layers(x).flatten(2).mean(2))
        return features


class Mlp(EncoderConfig):
    """Linear layers with ReLU on extracted features."""

    reads = {1: "features (D,)"}
    kind: Literal["mlp"] = "mlp"
    width: int = Field(default=128, ge=1)
    """Units of each layer, and features."""
    layers: int = Field(default=2, ge=1)
    dropout: Dropout = 0.3
    """After each layer."""

    def make(self, shape: tuple[int, ...]) -> MlpEncoder:
        return MlpEncoder(self, shape[0])


class MlpEncoder(Encoder):
    """Features of features (B, D)."""

    def __init__(self, config: Mlp, before: int) -> None:
        super().__init__()
        widths = [before, *[config.width] * config.layers]
        layers = [
            nn.Sequential(nn.Linear(first, second), nn.ReLU(), nn.Dropout(config.dropout))
            for first, second in pairwise(widths)
        ]
        self.layers = nn.Sequential(*layers)
        self.dim = config.width
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class FeatureTransformer(EncoderConfig):
    """A transformer over the frames of a sequence of features."""

    reads = {2: "a sequence (C, T)"}
    kind: Literal["sequence"] = "sequence"
    width: int = Field(default=64, ge=4, multiple_of=4)
    """Width of the states, and features; for four heads."""
    layers: int = Field(default=2, ge=1)
    dropout: Dropout = 0.1

    def make(self, shape: tuple[int, ...]) -> FeatureTransformerEncoder:
        return FeatureTransformerEncoder(self, shape)


class FeatureTransformerEncoder(Encoder):
    """Features of sequences (B, C, T). Frames of zeros alone are padding, at any position."""

    def __init__(self, config: FeatureTransformer, shape: tuple[int, ...]) -> None:
        super().__init__()
        channels, frames = shape
        self.embed = nn.Linear(channels, config.width)
        self.transformer = PooledTransformer(frames, config.width, config.layers, config.dropout)
        self.dim = config.width

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)  # (B, T, C)
        features: Tensor = self.transformer(self.embed(x), (x != 0).any(2))
        return features


class PooledTransformer(nn.Module):
    """A pre-norm transformer with learned positions, and the mean over what is not padding."""

    def __init__(self, length: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(  # built one by one: nn.TransformerEncoder starts all layers from the same weights
            nn.TransformerEncoderLayer(
                width, nhead=4, dim_feedforward=2 * width, dropout=dropout, activation="gelu",
                batch_first=True, norm_first=True,
            )
            for _ in range(layers)
        )  # fmt: skip
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """Return (B, D) of states (B, T, D), of which `real` (B, T) are no padding.

        A sequence of padding alone is read as if it were none, so that it gives numbers.
        """
        real = real | ~real.any(1, keepdim=True)
        x = self.dropout(x + self.positions)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~real)
        return masked_mean(self.norm(x), real)


def masked_mean(x: Tensor, real: Tensor) -> Tensor:
    """Return the mean (B, D) of the states (B, T, D) where `real` (B, T), zero where there are none."""
    total = x.masked_fill(~real.unsqueeze(2), 0.0).sum(1)
    return total / real.sum(1, keepdim=True).clamp(min=1)
