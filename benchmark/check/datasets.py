"""Contract tests of a data set, on its own samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.check.verdict import Result, judge, require
from benchmark.data import Dataset
from benchmark.errors import UserError
from benchmark.plan.sweep import open_dataset


def check_dataset(name: str, data_root: Path | None) -> Iterator[Result]:
    """Run the contract tests of a data set; its files must be there."""
    dataset = open_dataset(name, data_root)
    kind, config = type(dataset), dataset.config
    yield judge(
        "says what it is", lambda: require(bool(getattr(kind, "about", "")), "expected `about` with source and licence")
    )
    yield judge("knows its task without files", partial(_task_alone, kind, config))
    try:
        samples = dataset.load()
    except UserError as error:
        yield Result("loads", "fail", str(error))
        return
    for title, test in DATASET_TESTS.items():
        yield judge(title, partial(test, dataset, samples))


def _task_alone(kind: type[Dataset], config: Any) -> None:
    task = kind(config, None).task
    require(task.num_classes > 1 and bool(task.modalities), "expected two classes or more and a modality")


def _samples_sound(dataset: Dataset, samples: Any) -> str:
    count, task = len(samples), dataset.task
    require(
        set(samples.inputs) == set(task.modalities), f"expected {list(task.modalities)}, got {list(samples.inputs)}"
    )
    for modality, x in samples.inputs.items():
        require(len(x) == count, f"{modality}: expected {count} samples, got {len(x)}")
    require(len(set(samples.ids)) == count, "expected unique ids")
    low, high = int(samples.labels.min()), int(samples.labels.max())
    require(low >= 0 and high < task.num_classes, f"expected labels below {task.num_classes}, got {low} to {high}")
    return f"{count} samples"


def _loads_alike(dataset: Dataset, samples: Any) -> None:
    other = type(dataset)(dataset.config, dataset.root)
    again = other.load()
    some = np.linspace(0, len(samples) - 1, min(len(samples), 512)).astype(np.int64)
    first, second = samples.take(some), again.take(some)
    same = all(torch.equal(x, second[m]) for m, x in first.items()) and list(samples.ids) == list(again.ids)
    require(same, "loading twice gives other samples")
    require(dataset.fingerprint() == other.fingerprint(), "the fingerprint changes")


def _splits_disjoint(dataset: Dataset, samples: Any) -> str:
    split = dataset.split(samples, 0.15)
    parts = {name: getattr(split, name) for name in ("train", "valid", "test")}
    together = np.concatenate(list(parts.values()))
    require(len(set(together.tolist())) == len(together), "a sample is in two splits")
    require(all(len(part) for part in parts.values()), "a split is empty")
    missing = set(samples.labels.tolist()) - set(samples.labels[torch.from_numpy(parts["train"])].tolist())
    require(not missing, f"classes {sorted(missing)} are not in train")
    return ", ".join(f"{name} {len(part)}" for name, part in parts.items())


def _transforms(dataset: Dataset, samples: Any) -> None:
    rows = samples.take(np.arange(6))
    draws = torch.rand(6, dataset.num_draws, generator=torch.Generator().manual_seed(0))
    for given in (None, draws if dataset.num_draws else None):
        whole = dataset.transform(rows, given)
        for modality, x in whole.items():
            expected = (6, *dataset.task.modalities[modality].shape)
            fits = x.shape == expected if given is None else _is_part(x.shape, expected)
            require(fits, f"{modality}: expected {expected}, got {tuple(x.shape)}")
            require(bool(torch.isfinite(x).all()), f"{modality}: NaN or infinity")
        for i in range(6):
            single = dataset.transform(
                {m: x[i : i + 1] for m, x in rows.items()}, None if given is None else given[i : i + 1]
            )
            for modality, x in single.items():
                close = torch.allclose(x[0], whole[modality][i], atol=1e-5)
                require(close, f"{modality}: a sample alone is transformed otherwise than in a batch")


def _is_part(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Return whether a shape fits into another: augmentation may cut a window out of a sample."""
    return len(shape) == len(whole) and all(size <= limit for size, limit in zip(shape, whole, strict=True))


def _encodes(dataset: Dataset, samples: Any) -> None:
    inputs = dataset.transform(samples.take(np.arange(4)), None)
    torch.manual_seed(0)
    for modality, encoder in dataset.task.build_encoders().items():
        features = encoder(inputs[modality])
        require(
            tuple(features.shape) == (4, encoder.dim),
            f"{modality}: expected (4, {encoder.dim}), got {tuple(features.shape)}",
        )
        features.sum().backward()
        require(all(p.grad is not None for p in encoder.parameters()), f"{modality}: a parameter gets no gradient")


DATASET_TESTS: dict[str, Callable[[Dataset, Any], str | None]] = {
    "samples are sound": _samples_sound,
    "loads the same twice": _loads_alike,
    "splits are disjoint": _splits_disjoint,
    "transforms each sample by itself": _transforms,
    "encoders read it": _encodes,
}
