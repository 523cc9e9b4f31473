"""What watching the gradients costs: seconds of an epoch with and without it, printed as a ratio.

python tests/performance/gradients.py [data set] [pairs of epochs]
"""

from __future__ import annotations

import sys

import torch

import benchmark.train.trainer
from benchmark.plan.sweep import open_dataset
from benchmark.protocol import Recipe
from benchmark.registry import METHODS
from benchmark.train.trainer import Trainer, build_method, load_feeds

CPU = torch.device("cpu")


class Blind:
    """A meter that sees nothing."""

    def __init__(self, *_: object) -> None: ...

    def before_step(self) -> None: ...

    def after_step(self) -> None: ...

    def means(self) -> dict[str, float]:
        return {}


def main(name: str = "dialpad", pairs: str = "10") -> None:
    torch.set_num_threads(1)
    dataset = open_dataset(name)
    kind = METHODS.find("concat").load()
    recipe = Recipe(epochs=2 * int(pairs), batch_size=64, optimizer={"kind": "sgd", "lr": 0.01})
    method = build_method(kind, kind.Config(), dataset.task, recipe, 0, CPU)
    trainer = Trainer(method, load_feeds(dataset, recipe, CPU), recipe, 0, CPU)
    meters = {"watched": benchmark.train.trainer.GradientMeter, "blind": Blind}
    seconds: dict[str, list[float]] = {which: [] for which in meters}
    for epoch in range(recipe.epochs):
        which = list(meters)[epoch % 2]
        benchmark.train.trainer.GradientMeter = meters[which]  # type: ignore[assignment,misc]
        before = trainer.seconds["train"]
        trainer.run_epoch()
        seconds[which].append(trainer.seconds["train"] - before)
    watched, blind = (sorted(seconds[which])[len(seconds[which]) // 2] for which in meters)
    sys.stdout.write(f"{name}: {watched:.4f} s watched, {blind:.4f} s blind, ratio {watched / blind:.4f} (medians)\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
