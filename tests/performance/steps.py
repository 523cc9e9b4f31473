"""Print each method's training step and epoch over `concat`'s, beside the encoder passes that its algorithm needs.

python tests/performance/steps.py [--shapes avletters,cremad] [method ...]

A step of `concat` is one forward and one backward pass of every encoder, and a backward pass costs two forward ones, so
a step of F forward and B backward passes is predicted at (F + 2B) / 3. A ratio above 1.25 of that is marked: there the
method's own arithmetic, not the encoders', takes the time. Passes are counted as well, by samples that go through an
encoder and gradients that come back to it. A method that serves other samples than it is given does so in the count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from benchmark.data import Dataset, Samples, Split, TaskSpec
from benchmark.method import Method
from benchmark.protocol import Recipe, Sgd
from benchmark.registry import DATASETS, METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import Trainer, build_method, load_feeds

PASSES: dict[str, tuple[float, float]] = {
    "agm": (2, 2),
    "mmpareto": (1, 2),
    "umt": (2, 1),  # its teachers only look; they are not counted below
}
"""{method: forward and backward passes of a step} where they are not (1, 1), from the methods' own descriptions."""
SETTINGS: dict[str, dict[str, int]] = {"umt": {"teacher_epochs": 1}}
"""Settings that shorten what comes before the first step."""
NOT_COMPARED = {"unimodal": "trains one encoder, not all"}
TOLERANCE = 1.25
NUM_BATCHES = 8
"""In an epoch: enough samples for methods that hold some of every class out."""
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shape:
    """A data set whose shapes and encoders are used, with made-up samples."""

    dataset: str
    settings: dict[str, int]
    batch_size: int
    repeats: int
    """Steps to measure, at least."""


SHAPES = (Shape("avletters", {}, 32, 20), Shape("cremad", {"frames": 1}, 8, 3))


class MadeUp(Dataset):
    """Random samples with the shapes, classes and encoders of another data set."""

    about = "random samples"

    def __init__(self, task: TaskSpec, count: int) -> None:
        self._task, self._count = task, count

    @property
    def task(self) -> TaskSpec:
        return self._task

    def fingerprint(self) -> str:
        return ""

    def load(self) -> Samples:
        draw = torch.Generator().manual_seed(0)
        num = self._count + 2 * len(self._task.class_names)
        inputs = {m: torch.randn(num, *modality.shape, generator=draw) for m, modality in self._task.modalities.items()}
        labels = torch.arange(num) % len(self._task.class_names)
        return Samples(inputs, labels, [str(row) for row in range(num)])

    def split(self, samples: Samples, valid_share: float) -> Split:
        import numpy as np

        rows = np.arange(len(samples.labels))
        return Split(rows[: self._count], rows[self._count :], rows[self._count :])


@dataclass
class Count:
    """Samples through one encoder, forward and back."""

    forward: float = 0.0
    backward: float = 0.0

    def watch(self, encoder: nn.Module) -> None:
        encoder.register_forward_hook(self._seen)

    def _seen(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.forward += len(output)
        if output.requires_grad:
            output.register_hook(self._back)

    def _back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)


@dataclass
class Subject:
    """A method ready to train, with its times: CPU seconds, for others may use the machine."""

    method: Method
    counts: list[Count]
    steps: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    served: int = 0

    @property
    def step_time(self) -> float:
        """Median seconds of a step, without the first epoch's."""
        return statistics.median(self.steps[self.method.run.steps_per_epoch :])

    def train(self, epoch: int) -> None:
        """Train an epoch and note the time of each step and of all."""
        run = self.method.run
        run.begin_epoch(epoch)
        self.method.train()
        began = time.process_time()
        self.method.start_epoch(epoch)
        for batch in run.train_batches(epoch):
            start = time.process_time()
            self.method.step(batch)
            self.steps.append(time.process_time() - start)
            self.served += len(batch.labels)
        self.method.end_epoch(epoch)
        self.epochs.append(time.process_time() - began)


def prepare(name: str, dataset: Dataset, recipe: Recipe) -> Subject | str:
    """Return a method set up on made-up samples, or why it is not defined there."""
    kind = METHODS.find(name).load()
    config = parse_settings(kind.Config, {**kind.expand(dataset.task)[0], **SETTINGS.get(name, {})}, name)
    reason = kind.unsupported(config, dataset.task) or config.refuse(recipe.epochs)
    if reason is not None:
        return reason
    method = build_method(kind, config, dataset.task, recipe, 0, CPU)
    Trainer(method, load_feeds(dataset, recipe, CPU), recipe, 0, CPU)
    counts = [Count() for _ in method.net.encoders]
    for count, encoder in zip(counts, method.net.encoders.values(), strict=True):
        count.watch(encoder)
    return Subject(method, counts)


def compare(shape: Shape, names: list[str]) -> Iterator[str]:
    """Yield a line for each method; its epochs and those of `concat` take turns."""
    kind = DATASETS.find(shape.dataset).load()
    opened = kind(parse_settings(kind.Config, shape.settings, shape.dataset), None)
    dataset = MadeUp(opened.task, NUM_BATCHES * shape.batch_size)
    epochs = max(shape.repeats // NUM_BATCHES, 1) + 1
    recipe = Recipe(epochs=100, batch_size=shape.batch_size, optimizer=Sgd(lr=1e-3))
    for name in names:
        subject, baseline = prepare(name, dataset, recipe), prepare("concat", dataset, recipe)
        if isinstance(subject, str) or isinstance(baseline, str):
            yield f"{name:15} n/a: {subject}"
            continue
        for epoch in range(epochs):
            for each in (baseline, subject):
                each.train(epoch)
        yield _line(name, subject, baseline)


def _line(name: str, subject: Subject, baseline: Subject) -> str:
    step = subject.step_time / baseline.step_time
    epoch = statistics.median(subject.epochs[1:]) / statistics.median(baseline.epochs[1:])
    forward, backward = PASSES.get(name, (1.0, 1.0))
    predicted = (forward + 2 * backward) / 3
    counted = [
        sum(getattr(count, way) for count in subject.counts) / len(subject.counts) / subject.served
        for way in ("forward", "backward")
    ]
    mark = "  <-- above" if step > TOLERANCE * predicted else ""
    return (
        f"{name:15} {forward:7.2f} {backward:8.2f} {predicted:9.2f} {step:8.2f} {step / predicted:7.2f} {epoch:8.2f}"
        f" {counted[0]:9.2f} {counted[1]:9.2f}{mark}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--shapes", default=",".join(shape.dataset for shape in SHAPES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as a run does
    names = arguments.methods or [name for name in sorted(METHODS.known()) if name not in NOT_COMPARED]
    for shape in SHAPES:
        if shape.dataset in arguments.shapes.split(","):
            sys.stdout.write(f"{shape.dataset} shapes, batch {shape.batch_size}, one thread\n")
            head = ("method", "forward", "backward", "predicted", "step", "of it", "epoch", "counted f", "counted b")
            sys.stdout.write("{:15} {:>7} {:>8} {:>9} {:>8} {:>7} {:>8} {:>9} {:>9}\n".format(*head))
            for line in compare(shape, names):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
