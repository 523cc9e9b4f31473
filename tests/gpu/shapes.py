"""Methods ready to step on CREMA-D's shapes, and clocks that wait for the device.

Shapes: 20 s of sound as a spectrogram (1, 257, 1250), 1 or 3 frames of 224 x 224, ResNet18 for each, as in AUG's code.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gpu.report import Setting
from torch.utils.flop_counter import FlopCounterMode

from benchmark.check.synthetic import Blobs
from benchmark.data import Batch, Samples, TaskSpec
from benchmark.method import Method
from benchmark.protocol import Recipe
from benchmark.registry import DATASETS, METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import build_method
from benchmark.training import Feed, Run

BATCH = 64
WARM_UP = 5
METHODS_MEASURED = ("concat", "aug")
FRAMES = (1, 3)


@dataclass(frozen=True)
class Mode:
    """How numbers are computed."""

    name: str
    precision: str = "fp32"
    tf32: bool = False
    deterministic: bool = True
    fill: bool = True
    """Whether new memory is filled, as torch does for deterministic algorithms unless told not to."""

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """Compute so while this is open."""
        torch.use_deterministic_algorithms(self.deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = self.fill
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.tf32
        yield


FP32, TF32, BF16 = Mode("fp32"), Mode("TF32", tf32=True), Mode("bf16", "bf16")
BARE = Mode("bf16, memory not filled", "bf16", fill=False)
FREE = Mode("bf16, any algorithm", "bf16", deterministic=False)
"""What exact repetition costs is the step from this to bf16."""


def cremad_task(setting: Setting, frames: int) -> TaskSpec:
    """Return CREMA-D's task; of a quick check a small one."""
    kind = DATASETS.find("cremad").load()
    size = {"seconds": 1.0, "size": 64} if setting.quick else {"seconds": 20.0}
    task: TaskSpec = kind(parse_settings(kind.Config, {"frames": frames, **size}, "cremad"), None).task
    return task


def batch_size(setting: Setting) -> int:
    """Return the size of a batch."""
    return 4 if setting.quick else BATCH


def ready(
    setting: Setting, name: str, task: TaskSpec, precision: str = "fp32", **settings: Any
) -> tuple[Method, Batch]:
    """Return a method in its first epoch, and a batch of noise on the device."""
    device, size = torch.device(setting.device), batch_size(setting)
    kind = METHODS.find(name).load()
    recipe = Recipe(epochs=10, batch_size=size, optimizer={"kind": "sgd", "lr": 0.001}, precision=precision)
    draw = torch.Generator().manual_seed(0)
    inputs = {m: torch.randn(size, *modality.shape, generator=draw) for m, modality in task.modalities.items()}
    labels = torch.arange(size) % task.num_classes
    feed = Feed(Blobs(Blobs.Config()), Samples(inputs, labels, [str(row) for row in range(size)]), device, size)
    method = build_method(kind, parse_settings(kind.Config, settings, name), task, recipe, 0, device)
    method.attach(Run(feed, None, recipe, 0, device, task.num_classes))
    method.run.begin_epoch(0)
    method.train()
    method.start_epoch(0)
    batch = Batch({m: x.to(device) for m, x in inputs.items()}, labels.to(device), torch.arange(size, device=device))
    return method, batch


def wait(device: str) -> None:
    """Wait until the device has done all that it was told."""
    if device != "cpu":
        torch.cuda.synchronize()


def seconds_of(setting: Setting, call: Callable[[], object], budget: float, warm_up: int = WARM_UP) -> float:
    """Return the median seconds of a call, over three stretches of calls that together take about `budget` seconds."""
    for _ in range(1 if setting.quick else warm_up):
        call()
    wait(setting.device)
    began = time.perf_counter()
    call()
    wait(setting.device)
    count = max(1, int(budget / 3 / max(time.perf_counter() - began, 1e-6)))
    stretches = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(1 if setting.quick else count):
            call()
        wait(setting.device)
        stretches.append((time.perf_counter() - began) / (1 if setting.quick else count))
    return statistics.median(stretches)


def flops_of(call: Callable[[], object]) -> int:
    """Return the floating-point operations of convolutions and matrix products in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
