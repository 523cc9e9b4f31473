"""Dialpad: a handwritten digit and the noisy telephone key tone of the same digit. No download.

The digits are the 1,797 real ones that come with scikit-learn. The tones are standard dual tones (ITU-T Q.23) within
the tolerances of ITU-T Q.24, under white noise; the pairing by label is ours. Noise and split are part of the data
and the same in every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from benchmark.data import Dataset, Modality, Samples, Split, TaskSpec, hold_out
from benchmark.errors import Problem, UserError, nearest
from benchmark.model import Encoder, conv_block, scaled
from benchmark.seeds import generator, seed_of

SAMPLE_RATE = 8000
CLIP_SAMPLES = 1600
ROW_HZ = (697.0, 770.0, 852.0, 941.0)
COLUMN_HZ = (1209.0, 1336.0, 1477.0, 1633.0)
KEYPAD = ("123A", "456B", "789C", "*0#D")
TONE_SECONDS = (0.05, 0.08)
"""Q.24 asks receivers to take tones from 0.04 s."""
NUM_FFT, HOP = 256, 80
BINS = slice(18, 58)
"""Spectrogram bins from 562 to 1812 Hz, the band of the keys."""


def key_frequencies() -> Tensor:
    """Return row and column frequency in Hz of each digit's key, (10, 2)."""
    keys = {key: (ROW_HZ[r], COLUMN_HZ[c]) for r, row in enumerate(KEYPAD) for c, key in enumerate(row)}
    return torch.tensor([keys[digit] for digit in "0123456789"])


def key_tones(labels: Tensor, snr: float, draw: torch.Generator) -> Tensor:
    """Return noisy key tones, (N, CLIP_SAMPLES), with random phases, levels, twist, detuning, onset and length.

    Args:
        labels: digits, (N,).
        snr: power of a tone while it lasts over the power of the noise, in dB.
        draw: source of everything random.
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(labels), *shape, generator=draw)

    time = torch.arange(CLIP_SAMPLES) / SAMPLE_RATE
    frequency = key_frequencies()[labels] * (1 + uniform(-0.015, 0.015, 2))  # (N, 2), Q.24 accepts 1.5 % off
    phase = uniform(0, 2 * torch.pi, 2)
    twist = 10 ** (uniform(-2, 2) / 20)
    amplitude = torch.stack((twist, 1 / twist), 1)
    tone = (amplitude[..., None] * torch.sin(2 * torch.pi * frequency[..., None] * time + phase[..., None])).sum(1)
    tone = tone / tone.square().mean(1, keepdim=True).sqrt()
    length = uniform(*TONE_SECONDS, 1)
    onset = uniform(0, 1, 1) * (CLIP_SAMPLES / SAMPLE_RATE - length)
    tone = tone * ((time >= onset) & (time < onset + length))
    noise = torch.randn(len(labels), CLIP_SAMPLES, generator=draw) * 10 ** (-snr / 20)
    return 10 ** (uniform(-6, 6, 1) / 20) * (tone + noise)


def log_spectrogram(waveform: Tensor) -> Tensor:
    """Return the log magnitude within the keys' band, standardised for each clip: (B, samples) -> (B, 1, 40, 21)."""
    from torchaudio.functional import spectrogram

    window = torch.hann_window(NUM_FFT, device=waveform.device)
    magnitude: Tensor = spectrogram(waveform, 0, window, NUM_FFT, HOP, NUM_FFT, power=1.0, normalized=False)
    log = magnitude[:, BINS].clamp_min(1e-5).log()
    mean, std = log.mean((1, 2), keepdim=True), log.std((1, 2), keepdim=True)
    return ((log - mean) / std)[:, None]


def corrupt_pixels(image: Tensor, share: float, draw: torch.Generator) -> Tensor:
    """Replace each pixel by uniform noise with probability `share`."""
    replaced = torch.rand(image.shape, generator=draw) < share
    return torch.where(replaced, torch.rand(image.shape, generator=draw), image)


class ConvEncoder(Encoder):
    """3x3 convolutions with batch normalisation, then the mean over space: (B, 1, H, W) -> (B, dim)."""

    def __init__(self, widths: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = widths[-1]
        steps = zip((1, *widths), widths, strides, strict=False)
        self.layers = nn.Sequential(
            *(conv_block(nn.Conv2d, before, after, stride=stride) for before, after, stride in steps)
        )

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x).mean((2, 3))
        return features


def image_encoder(factor: float = 1.0) -> Encoder:
    return ConvEncoder(tuple(scaled(width, factor) for width in (16, 32, 64)), (1, 2, 2))


def audio_encoder(factor: float = 1.0) -> Encoder:
    return ConvEncoder(tuple(scaled(width, factor) for width in (16, 32, 64, 64)), (2, 2, 2, 2))


class Dialpad(Dataset):
    about = "scikit-learn's handwritten digits (UCI, CC BY 4.0) and synthesised key tones; nothing to download"
    recipe = {"epochs": 25, "optimizer": {"lr": 0.02}}
    scalable: ClassVar[tuple[str, ...]] = ("image", "audio")
    """Modalities whose encoders follow `width`."""

    class Config(Dataset.Config):
        snr: float = Field(default=-8.5, ge=-60, le=60)
        """Loudness of the tone over the noise in dB: lower makes audio weaker."""
        corruption: float = Field(default=0.2, ge=0, le=1)
        """Share of pixels replaced by noise: higher makes the image weaker."""
        width: dict[str, Annotated[float, Field(gt=0)]] = {}
        """Factor on the channels of a modality's encoder, 1 where not named; for capacity controls."""

    config: Config

    def __init__(self, config: Config, root: Path | None = None) -> None:
        super().__init__(config, root)
        if unknown := sorted(set(config.width) - set(self.scalable)):
            got, advice = ", ".join(map(repr, unknown)), nearest(unknown[0], self.scalable)
            where = f"data set {type(self).__name__.lower()}, width"
            raise UserError(Problem(where, "a modality with a scalable encoder", got, advice))

    @property
    def task(self) -> TaskSpec:
        modalities = {
            "image": Modality((1, 8, 8), partial(image_encoder, self.config.width.get("image", 1.0))),
            "audio": Modality((1, 40, 21), partial(audio_encoder, self.config.width.get("audio", 1.0))),
        }
        return TaskSpec(modalities, list("0123456789"))

    def fingerprint(self) -> str:
        from importlib.metadata import version

        return f"{seed_of(version('scikit-learn'), 'load_digits'):x}"

    def load(self) -> Samples:
        from sklearn.datasets import load_digits

        digits = load_digits()
        labels = torch.from_numpy(digits.target).long()
        image = torch.from_numpy(digits.images).float()[:, None] / 16
        inputs = {
            "image": corrupt_pixels(image, self.config.corruption, generator("dialpad", "image")),
            "audio": key_tones(labels, self.config.snr, generator("dialpad", "audio")),
        }
        return Samples(inputs, labels, [f"digit{i:04d}" for i in range(len(labels))])

    def split(self, samples: Samples, valid_share: float) -> Split:
        rest, test = hold_out(np.arange(len(samples)), samples.labels, 0.25)
        train, valid = hold_out(rest, samples.labels, valid_share)
        return Split(train, valid, test)

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        return {**inputs, "audio": log_spectrogram(inputs["audio"])}
