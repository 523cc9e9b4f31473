"""Contract tests of a data set, on its own samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmark.check.places import Places
from benchmark.check.verdict import Result, judge, require
from benchmark.data import Dataset, Samples
from benchmark.loading import (
    PARTS,
    absent_classes,
    constant_features,
    id_faults,
    input_faults,
    label_faults,
    listed,
    not_finite,
    refuse,
    split_samples,
)
from benchmark.plan.sweep import open_dataset

VALID_SHARE = 0.15
"""What is held out where no validation is published."""
MAX_READ, READ_TOGETHER = 2048, 64
"""Samples that are transformed to look at them, and how many at a time."""

Test = tuple[str, Callable[[], str | None], tuple[str, ...]]
"""Its name, itself, and the methods of the data set that it is about."""


def check_dataset(name: str, data_root: Path | None) -> Iterator[Result]:
    """Run the contract tests of a data set; its files must be there."""
    dataset = open_dataset(name, data_root)
    kind, config, loaded = type(dataset), dataset.config, list[Samples]()
    places = Places(kind)
    yield judge("says what it is", partial(_says_what_it_is, kind), places)
    yield judge("knows its task without files", partial(_task_alone, kind, config), places, "task")
    steps: list[Test] = [
        ("loads", lambda: loaded.append(_load(dataset)), ("load",)),
        ("samples are sound", lambda: _samples_sound(dataset, loaded[0]), ("load",)),
    ]
    for title, step, methods in steps:
        result = judge(title, step, places, *methods)
        yield result
        if result.failed:
            yield Result(f"{len(DATASET_TESTS)} other tests", "n/a", "not run before this is mended")
            return
    for title, (test, methods) in DATASET_TESTS.items():
        yield judge(title, partial(test, dataset, loaded[0]), places, *methods)
    yield from _remarks(dataset, loaded[0])


def _says_what_it_is(kind: type[Dataset]) -> None:
    require(bool(getattr(kind, "about", "")), "expected `about` with source and licence")


def _load(dataset: Dataset) -> Samples:
    samples = dataset.load()
    require(samples is not None, "load returned nothing: end it with `return Samples(...)`")
    require(isinstance(samples, Samples), f"load: expected Samples, got {type(samples).__name__}")
    return samples


def _remarks(dataset: Dataset, samples: Samples) -> Iterator[Result]:
    """Yield what is no fault and worth knowing."""
    try:
        split = dataset.split(samples, VALID_SHARE)
        said = [f"{modality}: {what}" for modality, what in constant_features(samples, split).items()]
        absent = absent_classes(dataset, samples, split)
    except Exception:  # noqa: BLE001  a test has said so
        return
    said += [f"no sample of {listed(names)} in {part}" for part, names in absent.items() if part != "train"]
    if said:
        yield Result("worth knowing", "note", "; ".join(said))


def _task_alone(kind: type[Dataset], config: Any) -> None:
    task = kind(config, None).task
    require(task.num_classes > 1 and bool(task.modalities), "expected two classes or more and a modality")


def _samples_sound(dataset: Dataset, samples: Samples) -> str:
    refuse(dataset, *input_faults(dataset, samples), *id_faults(samples), *label_faults(dataset, samples))
    return f"{len(samples)} samples"


def _loads_alike(dataset: Dataset, samples: Samples) -> None:
    other = type(dataset)(dataset.config, dataset.root)
    again = other.load()
    some = np.linspace(0, len(samples) - 1, min(len(samples), 512)).astype(np.int64)
    first, second = samples.take(some), again.take(some)
    same = all(torch.equal(x, second[m]) for m, x in first.items()) and list(samples.ids) == list(again.ids)
    require(same, "loading twice gives other samples")
    require(dataset.fingerprint() == other.fingerprint(), "the fingerprint changes")


def _splits_disjoint(dataset: Dataset, samples: Samples) -> str:
    split = split_samples(dataset, samples, VALID_SHARE)
    missing = absent_classes(dataset, samples, split).get("train", [])
    found = set(samples.labels.unique().tolist())
    missing = [name for k, name in enumerate(dataset.task.class_names) if name in missing and k in found]
    require(not missing, f"classes {listed(missing)} are not in train")
    return ", ".join(f"{name} {len(getattr(split, name))}" for name in PARTS)


def _transforms(dataset: Dataset, samples: Samples) -> None:
    rows = samples.take(np.arange(6))
    draws = torch.rand(6, dataset.num_draws, generator=torch.Generator().manual_seed(0))
    for given in (None, draws if dataset.num_draws else None):
        whole = dataset.transform(rows, given)
        for modality, x in whole.items():
            expected = (6, *dataset.task.modalities[modality].shape)
            fits = x.shape == expected if given is None else _is_part(x.shape, expected)
            require(fits, f"{modality}: expected {expected}, got {tuple(x.shape)}")
        for i in range(6):
            single = dataset.transform(
                {m: x[i : i + 1] for m, x in rows.items()}, None if given is None else given[i : i + 1]
            )
            for modality, x in single.items():
                close = torch.allclose(x[0], whole[modality][i], atol=1e-5)
                require(close, f"{modality}: a sample alone is transformed otherwise than in a batch")


def _finite(dataset: Dataset, samples: Samples) -> str:
    """Look at what the encoders would read of every sample, or of many of a large data set."""
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), MAX_READ)).astype(np.int64))
    for rows in np.array_split(chosen, -(-len(chosen) // READ_TOGETHER)):
        for modality, x in dataset.transform(samples.take(rows), None).items():
            bad = [samples.ids[rows[i]] for i in torch.nonzero(not_finite(x)).flatten()]
            require(not bad, f"{modality}: NaN or infinity after transform in {listed(bad)}")
    return f"{len(chosen):,} of {len(samples):,} looked at"


def _is_part(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Return whether a shape fits into another: augmentation may cut a window out of a sample."""
    return len(shape) == len(whole) and all(size <= limit for size, limit in zip(shape, whole, strict=True))


def _encodes(dataset: Dataset, samples: Samples) -> None:
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


DATASET_TESTS: dict[str, tuple[Callable[[Dataset, Samples], str | None], tuple[str, ...]]] = {
    "loads the same twice": (_loads_alike, ("load", "fingerprint")),
    "splits are disjoint": (_splits_disjoint, ("split",)),
    "transforms each sample by itself": (_transforms, ("transform", "task")),
    "transforms every sample to finite numbers": (_finite, ("transform", "load")),
    "encoders read it": (_encodes, ("task",)),
}
"""{name: test and the methods of the data set that it is about}"""
