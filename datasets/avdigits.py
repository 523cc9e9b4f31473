"""Spoken and handwritten digits: Free Spoken Digit Dataset, and the digits that come with scikit-learn.

The pairing is synthetic, by us: each recording gets an image of the same digit by a seeded rule. Each speaker, or each
part of the `index` split, has images of its own, so that no image is on both sides of a split.

Found under the data root:

    fsdd/recordings/7_jackson_32.wav     digit, speaker, index; 8 kHz
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from benchmark.cache import cached_arrays, digest_files
from benchmark.data import Samples, Split, TaskSpec, hold_out
from benchmark.encoders.small import ConvNet
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.lists import find_files, read_files
from benchmark.inputs.media import read_audio
from benchmark.inputs.transforms import crop_time, log_spectrogram
from benchmark.seeds import generator, seed_of

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
NUM_INDICES, NUM_TEST_INDICES = 50, 5
RATE = 8000
STORED, CLIP = 7200, 6400
"""Samples of a recording in the cache, and of what the encoder reads."""
NUM_FFT, HOP = 128, 100
WHERE = "data set avdigits"
ADVICE = (
    "Get the Free Spoken Digit Dataset (Jakobovski) and put recordings/ into a folder fsdd/ under "
    "--data-root or $BENCH_DATA."
)
DYNAMIC_RANGE = 7.0
"""How far below a clip's loudest point its log spectrogram goes, in nepers (61 dB); silence is no lower."""


class AVDigits(EncodedDataset):
    about = "Free Spoken Digit Dataset (CC BY-SA 4.0) paired by us with scikit-learn's digits (UCI, CC BY 4.0)"
    folder = "fsdd"
    recipe = {"epochs": 20, "batch_size": 64, "optimizer": {"kind": "adam", "lr": 0.002}}
    num_draws = 1
    default_encoders = {"image": ConvNet(width=16, stages=3), "audio": ConvNet(width=16)}

    class Config(EncodedDataset.Config):
        split: Literal["speaker", "index"] = "speaker"
        """`speaker`: two speakers are test, and another validates. `index`: recordings 0 to 4 are, as published."""
        rotation: int = Field(default=0, ge=0, le=5)
        """Which two speakers are test under `speaker`; 0 is George and Jackson, 1 is Jackson and Lucas ..."""

    config: Config

    @property
    def task(self) -> TaskSpec:
        shapes = {"image": (1, 8, 8), "audio": (1, 1 + NUM_FFT // 2, 1 + CLIP // HOP)}
        modalities = {modality: self.modality(modality, shape) for modality, shape in shapes.items()}
        return TaskSpec(modalities, list("0123456789"))

    def fingerprint(self) -> str:
        from importlib.metadata import version

        files = self._find()
        return f"{digest_files(files, files[0].parent)}-{seed_of(version('scikit-learn'), 'load_digits') % 2**32:x}"

    @property
    def published(self) -> Mapping[str, int]:
        return {"train": 2700, "test": 300} if self.config.split == "index" else {}

    def keys(self) -> Mapping[str, Sequence[str]]:
        names = recording_names()
        return {"speaker": [speaker_of(name) for name in names], "image": [str(i) for i in self._image_of(names)]}

    def load(self) -> Samples:
        from sklearn.datasets import load_digits

        files = self._find()
        key = f"{self.fingerprint()}-{STORED}"
        audio = cached_arrays("avdigits", key, lambda: {"audio": read_recordings(files)})["audio"]
        images = torch.from_numpy(load_digits().images).float()[:, None] / 16
        names = recording_names()
        labels = torch.tensor([digit_of(name) for name in names])
        return Samples({"image": images[self._image_of(names)], "audio": torch.from_numpy(audio)}, labels, names)

    def split(self, samples: Samples, valid_share: float) -> Split:
        names = list(samples.ids)
        if self.config.split == "speaker":
            held = {SPEAKERS[(self.config.rotation + i) % len(SPEAKERS)] for i in range(2)}
            groups = [speaker_of(name) for name in names]
            is_test = np.array([speaker in held for speaker in groups])
        else:
            groups = [str(image) for image in self._image_of(names)]
            is_test = np.array([index_of(name) < NUM_TEST_INDICES for name in names])
        train, valid = hold_out(np.flatnonzero(~is_test), samples.labels, valid_share, groups)
        return Split(train, valid, np.flatnonzero(is_test))

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        waveform = crop_time(inputs["audio"], CLIP, None if draws is None else draws[:, 0])
        log = log_spectrogram(waveform.float() / 2**15, NUM_FFT, HOP)
        log = torch.maximum(log, log.amax((1, 2, 3), keepdim=True) - DYNAMIC_RANGE)
        mean, std = log.mean((1, 2, 3), keepdim=True), log.std((1, 2, 3), keepdim=True)
        return {**inputs, "audio": (log - mean) / std.clamp_min(0.1)}  # silence becomes zeros

    def _image_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return the image of each recording."""
        from sklearn.datasets import load_digits

        if self.config.split == "speaker":
            owners = [speaker_of(name) for name in names]
        else:
            owners = ["test" if index_of(name) < NUM_TEST_INDICES else "train" for name in names]
        return pair([digit_of(name) for name in names], owners, load_digits().target)

    def _find(self) -> list[Path]:
        return find_files(self.root, [f"recordings/{name}.wav" for name in recording_names()], WHERE, ADVICE)


def recording_names() -> list[str]:
    """Return the 3,000 names such as `7_jackson_32`: digit, speaker, index."""
    return [f"{digit}_{who}_{index}" for digit in range(10) for who in SPEAKERS for index in range(NUM_INDICES)]


def digit_of(name: str) -> int:
    return int(name.partition("_")[0])


def speaker_of(name: str) -> str:
    return name.split("_")[1]


def index_of(name: str) -> int:
    return int(name.rpartition("_")[2])


def pair(digits: Sequence[int], owners: Sequence[str], image_digits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of an image of the same digit for each recording, the same in every run.

    The images of a digit, shuffled, are shared out to the owners by how many recordings they have of it. Within an
    owner they are taken in turn, over again when they run out.

    Args:
        digits: of the recordings (N,).
        owners: the speaker or part whose own images a recording takes, (N,).
        image_digits: of the images.
    """
    digits_, owners_ = np.array(digits), np.array(owners)
    chosen = np.empty(len(digits), dtype=np.int64)
    for digit in np.unique(digits_):
        images = np.flatnonzero(image_digits == digit)
        images = images[torch.randperm(len(images), generator=generator("avdigits", int(digit))).numpy()]
        recordings = np.flatnonzero(digits_ == digit)
        names, counts = np.unique(owners_[recordings], return_counts=True)
        ends = np.cumsum(counts) * len(images) // len(recordings)
        for name, own in zip(names, np.split(images, ends[:-1]), strict=True):
            theirs = recordings[owners_[recordings] == name]
            chosen[theirs] = np.resize(own, len(theirs))
    return chosen


def read_recordings(paths: Sequence[Path]) -> NDArray[np.int16]:
    """Return the middle STORED samples of each recording, shorter ones between zeros, (N, STORED)."""

    def read(path: Path) -> NDArray[np.int16]:
        waveform = np.round(read_audio(path, RATE) * 2**15).astype(np.int16)
        spare = STORED - len(waveform)
        if spare < 0:
            return waveform[-spare // 2 :][:STORED]
        return np.pad(waveform, (spare // 2, spare - spare // 2))

    return np.stack(read_files(paths, read, WHERE))
