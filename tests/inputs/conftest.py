"""A small data set of raw media: sounds of different lengths and pictures, as a plugin outside the package."""

from __future__ import annotations

import os
import textwrap

import numpy as np
import pytest
import soundfile
from PIL import Image

from benchmark.registry import DATASETS

CLIPS = '''
"""Clips: made-up sounds and pictures."""
import numpy as np
from functools import cached_property
from benchmark.data import TaskSpec
from benchmark.encoders.small import ConvNet
from benchmark.inputs.clips import Clip, ClipDataset
from benchmark.inputs.media import read_audio, read_image
from benchmark.inputs.store import Spread, Tiled
from benchmark.inputs.transforms import (
    IMAGENET_MEAN, IMAGENET_STD, NUM_CROP_DRAWS, crop_frames, log_spectrogram, random_boxes, resize_frames
)

class Clips(ClipDataset):
    about = "made up"
    recipe = {"epochs": 2, "batch_size": 8}
    num_draws = NUM_CROP_DRAWS + 1
    default_encoders = {"audio": ConvNet(), "video": ConvNet()}

    class Config(ClipDataset.Config):
        rate: int = 8000
        frames: int = 2

    @property
    def task(self):
        return TaskSpec({"audio": self.modality("audio", (1, 33, 32)), "video": self.modality("video", (3, 16, 16))},
                        ["low", "high"])

    @cached_property
    def clips(self):
        lines = (self.root / "list.csv").read_text().splitlines()
        rows = [line.split(",") for line in lines]
        return [Clip(name, int(label), part, self.files(name)) for name, label, part in rows]

    def files(self, name):
        return {"audio": self.root / f"{name}.wav", **{f"frame{i}": self.root / f"{name}_{i}.png" for i in range(3)}}

    def decoding(self):
        return {"rate": self.config.rate}

    def decode(self, clip):
        frames = [read_image(clip.files[f"frame{i}"]) for i in range(3)]
        return {"audio": read_audio(clip.files["audio"], self.config.rate), "video": np.stack(frames)}

    def inputs(self, packed, clips):
        return {"audio": Tiled(packed["audio"], 1000), "video": Spread(packed["video"], 1)}

    def transform(self, inputs, draws):
        video = inputs["video"]
        if draws is None:
            pictures = resize_frames(video, 16, IMAGENET_MEAN, IMAGENET_STD)
        else:
            boxes, flips = random_boxes(draws[:, :-1], *video.shape[2:4]), draws[:, -1] < 0.5
            pictures = crop_frames(video, boxes, flips, 16, IMAGENET_MEAN, IMAGENET_STD)
        return {"audio": log_spectrogram(inputs["audio"], 64, 32), "video": pictures[:, :, 0]}
'''


@pytest.fixture(scope="session")
def plugin_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugins") / "clips.py"
    path.write_text(textwrap.dedent(CLIPS))
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a cache folder of the test's own."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def raw(tmp_path):
    """Return a folder with the list and the raw files of 40 clips."""
    root = tmp_path / "data" / "clips"
    root.mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = []
    for i in range(40):
        name, label = f"clip{i:02d}", i % 2
        time = np.arange(draw.integers(400, 3000)) / 8000
        soundfile.write(root / f"{name}.wav", 0.3 * np.sin(2 * np.pi * (300 + 900 * label) * time), 8000)
        for k in range(3):
            pixels = draw.integers(0, 256, (24, 32, 3)) // 2 + 100 * label
            Image.fromarray(pixels.astype(np.uint8)).save(root / f"{name}_{k}.png")
        lines.append(f"{name},{label},{'test' if i >= 30 else 'train'}")
    (root / "list.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def clips(plugin_file, raw, cache):
    """Return a function that makes the data set from settings."""
    kind = DATASETS.find(str(plugin_file)).load()
    return lambda **settings: kind(kind.Config(**settings), raw)


@pytest.fixture
def not_root():
    if os.geteuid() == 0:
        pytest.skip("root may read and write everything")
