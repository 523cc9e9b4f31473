"""Does the device wait for data? Training and evaluation out of a prepared store of made-up clips."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from benchmark.datasets.cremad import CremaD
from gpu.report import Setting
from gpu.shapes import BF16, Recipe, batch_size, wait

from benchmark.inputs.clips import Clip
from benchmark.inputs.prepare import prepare
from benchmark.inputs.store import Arrays
from benchmark.registry import METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import Trainer, build_method, load_feeds

NUM_CLIPS = {False: 500, True: 48}
"""By whether the check is a quick one."""


class MadeUpClips(CremaD):
    """CREMA-D's shapes and store, with noise for clips."""

    class Config(CremaD.Config):
        num_clips: int = 500
        """Clips in all; a sixth of them test."""

    config: Config

    @cached_property
    def clips(self) -> Sequence[Clip]:
        parts = ("train", "train", "train", "train", "train", "test")
        return [Clip(f"{n:04d}", n // 6 % 6, parts[n % 6], {}) for n in range(self.config.num_clips)]

    def decode(self, clip: Clip) -> Arrays:
        draw = np.random.default_rng(int(clip.id))
        sound = draw.standard_normal(self.task.modalities["audio"].shape, np.float32)
        return {"audio": sound, "video": draw.integers(256, size=(3, *self.config.canvas, 3), dtype=np.uint8)}


def measure_loading(setting: Setting) -> None:
    """Compare an epoch out of the store with as many steps on batches that are on the device already."""
    os.environ["BENCH_CACHE"] = str(setting.folder / "cache")
    size = {"seconds": 1.0, "size": 64} if setting.quick else {"seconds": 20.0}
    config = {"num_clips": NUM_CLIPS[setting.quick], **size}
    dataset = MadeUpClips(parse_settings(MadeUpClips.Config, config, "made-up clips"), None)
    began = time.perf_counter()
    made = prepare(dataset, len(os.sched_getaffinity(0)), allow_missing=False)
    seconds = time.perf_counter() - began
    setting.note("store of clips, written", made.num_bytes / 2**20 / seconds, "MiB/s", remark=f"{made.num_clips} clips")
    for frames in (1,) if setting.quick else (1, 3):
        with BF16.on():
            measure_epoch(setting, f"{frames} frame" + "s" * (frames > 1), {**config, "frames": frames})


def measure_epoch(setting: Setting, title: str, config: dict[str, object]) -> None:
    """Note where the time of an epoch goes."""
    device = torch.device(setting.device)
    recipe = Recipe(epochs=9, batch_size=batch_size(setting), optimizer={"kind": "sgd", "lr": 0.001}, precision="bf16")
    dataset = MadeUpClips(parse_settings(MadeUpClips.Config, config, "made-up clips"), None)
    kind = METHODS.find("concat").load()
    method = build_method(kind, kind.Config(), dataset.task, recipe, 0, device)
    trainer = Trainer(method, load_feeds(dataset, recipe, device), recipe, 0, device)
    trainer.run_epoch()  # warms up card and page cache
    before = dict(trainer.seconds)
    trainer.run_epoch()
    spent = {what: trainer.seconds[what] - before[what] for what in before}
    setting.note(f"{title}: evaluation, share of an epoch", spent["evaluate"] / sum(spent.values()))
    method.train()
    began = time.perf_counter()
    kept = list(trainer.run.train_batches(2))
    wait(setting.device)
    setting.note(f"{title}: data alone", trainer.run.num_train / (time.perf_counter() - began), "samples/s")
    began = time.perf_counter()
    for batch in kept:
        method.step(batch)
    wait(setting.device)
    steps = time.perf_counter() - began
    rate = trainer.run.num_train / spent["train"]
    setting.note(f"{title}: training out of the store", rate, "samples/s")
    setting.note(f"{title}: share of training spent waiting for data", max(0.0, 1 - steps / spent["train"]))
