"""Synthetic tasks for contract tests: separable blobs seen through two or three modalities."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Dataset, Modality, Samples, Split, TaskSpec, hold_out
from benchmark.model import Encoder
from benchmark.seeds import generator

NAMES = ("audio", "video", "text")


class BlobEncoder(Encoder):
    """A small network with everything that can go wrong: normalisation statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 8
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


class Blobs(Dataset):
    """Gaussian blobs, one centre for each class and modality, with jitter as augmentation."""

    about = "synthetic, made on the spot"
    num_draws = 1

    class Config(Dataset.Config):
        num_modalities: int = Field(default=2, ge=1, le=3)
        """How many of audio, video and text there are."""
        num_classes: int = Field(default=3, ge=2)
        """Classes, balanced."""
        noise: float = Field(default=0.6, ge=0)
        """Standard deviation around the centres, which are about 2.4 apart."""

    config: Config

    @property
    def task(self) -> TaskSpec:
        names = NAMES[: self.config.num_modalities]
        classes = [f"class {k}" for k in range(self.config.num_classes)]
        return TaskSpec({name: Modality((6,), BlobEncoder) for name in names}, classes)

    def fingerprint(self) -> str:
        return "synthetic"

    def load(self) -> Samples:
        labels = torch.arange(150) % self.config.num_classes
        inputs = {}
        for name in self.task.modalities:
            draw = generator("blobs", name)
            centres = torch.randn(self.config.num_classes, 6, generator=draw)
            inputs[name] = centres[labels] + self.config.noise * torch.randn(150, 6, generator=draw)
        return Samples(inputs, labels, [f"blob{i}" for i in range(150)])

    def split(self, samples: Samples, valid_share: float) -> Split:
        train, valid = hold_out(np.arange(100), samples.labels, valid_share)
        return Split(train, valid, np.arange(100, 150))

    def transform(self, inputs: dict[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:  # type: ignore[override]
        if draws is None:
            return dict(inputs)
        return {m: x * (0.9 + 0.2 * draws) for m, x in inputs.items()}
