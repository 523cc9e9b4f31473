"""Print what AUG's classifiers cost: a training step and a prediction with 20 of them over one, batched and looped.

python tests/performance/classifiers.py
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from benchmark.datasets.avletters import AudioEncoder, VideoEncoder
from benchmark.methods.aug import AUG, AUGHead
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from benchmark.check.synthetic import Blobs
from benchmark.data import Batch, Modality, Samples, TaskSpec
from benchmark.model import Encoder
from benchmark.protocol import Recipe
from benchmark.settings import parse_settings
from benchmark.training import Feed, Run

MANY = 20


class ResNet(Encoder):
    """The encoder of CREMA-D: ResNet18 without its last layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = 512
        self.layers = resnet18()
        self.layers.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.layers.fc = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.layers(x)
        return features


TASKS = {
    "avletters, batch 32": (
        32,
        TaskSpec(
            {"audio": Modality((26, 48), AudioEncoder), "video": Modality((20, 24, 32), VideoEncoder)}, list("abcdef")
        ),
    ),
    "CREMA-D, ResNet18, batch 16": (
        16,
        TaskSpec(
            {"audio": Modality((1, 257, 188), lambda: ResNet(1)), "video": Modality((3, 224, 224), lambda: ResNet(3))},
            list("abcdef"),
        ),
    ),
}


def prepare(task: TaskSpec, batch_size: int, count: int) -> tuple[AUG, Batch]:
    """Return AUG with `count` classifiers for each modality, ready to step, and a batch."""
    torch.manual_seed(0)
    settings = {"classifiers": dict.fromkeys(task.modalities, count), "assign": False}
    method = AUG(parse_settings(AUG.Config, settings, "aug"), task)
    recipe = Recipe(epochs=1, batch_size=batch_size, optimizer={"kind": "sgd", "lr": 0.001})
    inputs = {m: torch.randn(batch_size, *modality.shape) for m, modality in task.modalities.items()}
    labels = torch.randint(6, (batch_size,))
    samples = Samples(inputs, labels, [str(i) for i in range(batch_size)])
    feed = Feed(Blobs(Blobs.Config()), samples, torch.device("cpu"), batch_size)
    method.attach(Run(feed, None, recipe, 0, torch.device("cpu"), 6))
    method.start_epoch(0)
    return method, Batch(inputs, labels, torch.arange(batch_size))


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each call; calls take turns, so that the machine's moods hit all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 2):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def looped(head: AUGHead, u: Tensor) -> Tensor:
    """Return the summed logits as the released code computes them, one classifier after another."""
    bank = head.bank("audio")
    layers = zip(bank.weight.split(bank.hidden), bank.bias.split(bank.hidden), strict=True)
    return torch.stack([head.output(F.relu(F.linear(u, *layer))) for layer in layers]).sum(0)


def measure(name: str, batch_size: int, task: TaskSpec) -> None:
    (one, batch), (many, _) = prepare(task, batch_size, 1), prepare(task, batch_size, MANY)
    repeats = 5 if "ResNet" in name else 30
    times = medians({"one": lambda: one.step(batch), "many": lambda: many.step(batch)}, repeats)
    sys.stdout.write(f"{name}: training step, {MANY} over 1: {times['many'] / times['one']:.2f}\n")
    one.eval(), many.eval()
    with torch.no_grad():
        times = medians({"one": lambda: one.predict(batch.inputs), "many": lambda: many.predict(batch.inputs)}, repeats)
        sys.stdout.write(f"{name}: prediction, {MANY} over 1: {times['many'] / times['one']:.2f}\n")
        u = one.net.encode(batch.inputs)["audio"]
        calls = {
            "one": lambda: looped(one.net.head, u),
            "loop": lambda: looped(many.net.head, u),
            "batched": lambda: many.net.head.logits_of(many.net.head.banks["audio"](u)),
        }
        times = medians(calls, 200)
    ratios = ", ".join(f"{way} {times[way] / times['one']:.1f}" for way in ("loop", "batched"))
    sys.stdout.write(f"{name}: head alone, {MANY} over 1: {ratios}\n")


def main() -> None:
    torch.set_num_threads(1)
    for name, (batch_size, task) in TASKS.items():
        measure(name, batch_size, task)


if __name__ == "__main__":
    main()
