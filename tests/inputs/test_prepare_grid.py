"""Real clips out of real containers: GRID's MPEG-1 with MP2 sound, prepared, loaded and trained on."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from benchmark.data import TaskSpec
from benchmark.encoders.small import ConvNet
from benchmark.inputs.clips import Clip, ClipDataset
from benchmark.inputs.media import Frames, read_audio, read_frames
from benchmark.inputs.prepare import prepare
from benchmark.inputs.store import Spread, Tiled
from benchmark.inputs.transforms import IMAGENET_MEAN, IMAGENET_STD, log_spectrogram, resize_frames

DATA = Path(os.environ.get("BENCH_DATA", "no data root")) / "grid" / "s1"
COLOURS = {"b": "blue", "g": "green", "r": "red", "w": "white"}
RATE = 8000

pytestmark = pytest.mark.data("grid")


class Grid(ClipDataset):
    """The colour that a sentence of GRID names: the second letter of a clip's name."""

    about = "GRID corpus, speaker s1; CC BY 4.0"
    default_encoders = {"audio": ConvNet(), "video": ConvNet()}

    @property
    def task(self):
        shapes = {"audio": (1, 129, 188), "video": (3, 32, 32)}
        return TaskSpec({m: self.modality(m, shape) for m, shape in shapes.items()}, sorted(COLOURS.values()))

    @cached_property
    def clips(self):
        names = sorted(path.stem for path in self.root.glob("*.mpg"))
        label = {letter: self.task.class_names.index(colour) for letter, colour in COLOURS.items()}
        parts = ["test" if i % 4 == 0 else "train" for i in range(len(names))]
        return [
            Clip(name, label[name[1]], part, {"video": self.root / f"{name}.mpg"})
            for name, part in zip(names, parts, strict=True)
        ]

    def decode(self, clip):
        path = clip.files["video"]
        return {"audio": read_audio(path, RATE), "video": read_frames(path, Frames(step=25), (48, 60))}

    def inputs(self, packed, clips):
        return {"audio": Tiled(packed["audio"], 3 * RATE), "video": Spread(packed["video"], 1)}

    def transform(self, inputs, draws):
        pictures = resize_frames(inputs["video"], 32, IMAGENET_MEAN, IMAGENET_STD)
        return {"audio": log_spectrogram(inputs["audio"], 256, 128), "video": pictures[:, :, 0]}


def test_clips_of_grid_are_prepared_loaded_and_trained_on(tmp_path, monkeypatch, trainer):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    dataset = Grid(Grid.Config(), DATA)
    done = prepare(dataset, 2, False)
    assert (done.num_clips, done.num_decoded, done.failed) == (60, 60, [])
    samples = dataset.load()
    inputs = samples.take(np.arange(60))
    assert inputs["audio"].shape == (60, 3 * RATE)
    assert inputs["video"].shape == (60, 1, 48, 60, 3)
    for row in (0, 17, 59):
        arrays = dataset.decode(dataset.clips[row])
        assert 2.9 < len(arrays["audio"]) / RATE < 3.1
        assert len(arrays["video"]) == 3
        assert np.array_equal(inputs["video"][row, 0], arrays["video"][1])
        assert np.array_equal(inputs["audio"][row], np.resize(arrays["audio"], 3 * RATE))
    histories = []
    for _ in range(2):
        run = trainer("concat", dataset=dataset, epochs=2, batch_size=16)
        histories.append([run.run_epoch()[0] for _ in range(2)])
    assert histories[0] == histories[1]
    assert np.isfinite(histories[0][1]["train"]["loss"])
