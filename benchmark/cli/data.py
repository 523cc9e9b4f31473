"""`bench data`: look at a data set before training on it."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from benchmark.cli.options import DataRoot, Json
from benchmark.cli.terminal import console as open_console

app = typer.Typer(no_args_is_help=True, help="Look at a data set before training on it.")


@app.callback()
def _group() -> None:
    """Keep `check` a subcommand although it is the only one."""


@app.command("check")
def check(
    name: Annotated[str, typer.Argument(help="A data set, e.g. avletters[split=speaker].")],
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """Load a data set and show its counts, splits, shapes, class balance and fingerprint."""
    from benchmark.spec import open_dataset

    dataset = open_dataset(name, data_root)
    samples = dataset.load()
    split = dataset.split(samples, 0.15)
    labels = samples.labels.numpy()
    facts: dict[str, Any] = {
        "name": name,
        "about": dataset.about,
        "fingerprint": dataset.fingerprint(),
        "samples": len(samples),
        "classes": dataset.task.num_classes,
        "modalities": {m: list(modality.shape) for m, modality in dataset.task.modalities.items()},
        "splits": {part: len(getattr(split, part)) for part in ("train", "valid", "test")},
        "class counts": {
            part: [int((labels[getattr(split, part)] == k).sum()) for k in range(dataset.task.num_classes)]
            for part in ("train", "valid", "test")
        },
    }
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    console = open_console()
    for key, value in facts.items():
        console.print(f"[bold]{key}[/]: {value}", markup=True, soft_wrap=True)
