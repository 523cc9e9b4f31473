"""Dialpad3: dialpad with a third modality, a noisy reading of a seven-segment display. No download."""

from __future__ import annotations

from functools import partial

import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Modality, Samples, TaskSpec
from benchmark.model import Encoder, scaled
from benchmark.seeds import generator

from .dialpad import Dialpad

SEGMENTS = (
    "1111110", "0110000", "1101101", "1111001", "0110011", "1011011", "1011111", "1110000", "1111111", "1111011",
)  # fmt: skip
"""Lit segments a to g of the digits 0 to 9."""


class SegmentsEncoder(Encoder):
    """Two linear layers with batch normalisation: (B, 7) -> (B, dim)."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.dim = scaled(64, factor)
        self.layers = nn.Sequential(
            nn.Linear(7, self.dim, bias=False), nn.BatchNorm1d(self.dim), nn.ReLU(),
            nn.Linear(self.dim, self.dim, bias=False), nn.BatchNorm1d(self.dim), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class Dialpad3(Dialpad):
    scalable = (*Dialpad.scalable, "segments")
    about = "dialpad with synthesised readings of a seven-segment display; nothing to download"

    class Config(Dialpad.Config):
        segment_noise: float = Field(default=0.35, ge=0)
        """Standard deviation of the reading's noise; a lit segment reads 1, a dark one 0."""

    config: Config

    @property
    def task(self) -> TaskSpec:
        pair = super().task
        segments = Modality((7,), partial(SegmentsEncoder, self.config.width.get("segments", 1.0)))
        return TaskSpec({**pair.modalities, "segments": segments}, pair.class_names)

    def load(self) -> Samples:
        pair = super().load()
        pattern = torch.tensor([[float(lit) for lit in digit] for digit in SEGMENTS])[pair.labels]
        noise = torch.randn(pattern.shape, generator=generator("dialpad", "segments"))
        readings: Tensor = pattern + self.config.segment_noise * noise
        return Samples({**pair.inputs, "segments": readings}, pair.labels, pair.ids)
