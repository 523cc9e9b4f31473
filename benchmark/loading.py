"""Loading a data set: the one place that reads samples and their split, and refuses what no run can be trained on.

Everything that trains, plans or looks at data loads through here, so that all of them refuse the same data.

Shapes: N samples, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import Dataset, Index, Samples, Split
from benchmark.errors import Problem, UserError

PARTS = ("train", "valid", "test")
SHOWN = 5
"""Samples named of each kind of fault."""
CHUNK = 4096
"""Samples looked at together."""

Fault = tuple[str, str, str]
"""What is wrong, what was expected, what came."""


def load_parts(dataset: Dataset, valid_share: float) -> tuple[Samples, Split]:
    """Load a data set and divide it.

    Args:
        dataset: whose files are there.
        valid_share: what is held out from train where no validation is published; 0 for none.

    Raises:
        UserError: with every fault of the samples, or of the split, and the samples that have it.
    """
    samples = load_samples(dataset)
    return samples, split_samples(dataset, samples, valid_share)


def load_samples(dataset: Dataset) -> Samples:
    """Load every sample. Raises `UserError` with every fault, and the samples that have it."""
    samples = dataset.load()
    refuse(dataset, *input_faults(dataset, samples), *id_faults(samples), *label_faults(dataset, samples))
    return samples


def split_samples(dataset: Dataset, samples: Samples, valid_share: float) -> Split:
    """Divide samples. Raises `UserError` with every fault of the split."""
    split = dataset.split(samples, valid_share)
    refuse(dataset, *position_faults(samples, split))
    refuse(dataset, *part_faults(dataset, samples, split, valid_share), *overlap_faults(samples, split))
    return split


def refuse(dataset: Dataset, *faults: Fault) -> None:
    """Raise `UserError` with every fault, if there is any."""
    where = f"data set {type(dataset).__name__.lower()}"
    if faults:
        raise UserError(*(Problem(f"{where}, {what}", expected, got) for what, expected, got in faults))


# --- samples -------------------------------------------------------------------------------------------------------


def input_faults(dataset: Dataset, samples: Samples) -> Iterator[Fault]:
    """Yield what keeps the inputs from being trained on: other modalities or counts, NaN of what is in memory."""
    modalities, count = dataset.task.modalities, len(samples)
    if set(samples.inputs) != set(modalities):
        yield "inputs", f"modalities {', '.join(modalities)}", ", ".join(samples.inputs) or "none"
    for modality, x in samples.inputs.items():
        if len(x) != count:
            yield modality, f"an input for each of {count:,} ids", f"{len(x):,}"
        elif isinstance(x, Tensor):
            yield from _not_finite(modality, x, samples.ids)


def id_faults(samples: Samples) -> Iterator[Fault]:
    """Yield what is wrong with the ids: those that repeat."""
    twice = [name for name, number in Counter(samples.ids).items() if number > 1]
    if twice:
        yield "ids", "an id of its own for each sample", f"{len(twice):,} that repeat: {listed(twice)}"


def label_faults(dataset: Dataset, samples: Samples) -> Iterator[Fault]:
    """Yield what is wrong with the labels: another type, or classes that the task does not have."""
    labels, num_classes = samples.labels, dataset.task.num_classes
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.shape != (len(samples),):
        kind = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        yield "labels", f"a class index for each sample, torch.int64 ({len(samples)},)", kind
        return
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        found = [f"{int(labels[i])} of {samples.ids[i]}" for i in wrong[:SHOWN]]
        yield (
            "labels",
            f"class indices from 0 to {num_classes - 1}",
            f"{len(wrong):,} others: {listed(found, len(wrong))}",
        )


def _not_finite(modality: str, x: Tensor, ids: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    bad = np.flatnonzero(not_finite(x))
    if len(bad):
        got = f"NaN or infinity in {len(bad):,} samples: {listed([ids[i] for i in bad[:SHOWN]], len(bad))}"
        yield modality, "finite numbers", got


def not_finite(x: Tensor) -> Tensor:
    """Return which samples hold NaN or infinity, (N, ...) -> truth values (N,)."""
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.bool)
    return torch.cat([~torch.isfinite(part.reshape(len(part), -1)).all(1).cpu() for part in x.split(CHUNK)])


# --- split ---------------------------------------------------------------------------------------------------------


def position_faults(samples: Samples, split: Split) -> Iterator[Fault]:
    """Yield the parts that hold something else than positions of samples."""
    for name, index in _parts(split).items():
        if len(index) and (index.dtype.kind not in "iu" or index.min() < 0 or index.max() >= len(samples)):
            yield name, f"positions from 0 to {len(samples) - 1}", f"{index.dtype}, {index.min()} to {index.max()}"


def part_faults(dataset: Dataset, samples: Samples, split: Split, valid_share: float) -> Iterator[Fault]:
    """Yield the parts without a sample, and train if it has a single class."""
    for name, index in _parts(split).items():
        if not len(index) and (name != "valid" or valid_share > 0):
            yield name, "a sample or more", "none"
    if len(split.train):
        present = np.flatnonzero(_class_counts(dataset, samples, split.train))
        if len(present) < 2:
            yield "train", "two classes or more", f"only {dataset.task.class_names[int(present[0])]}"


def overlap_faults(samples: Samples, split: Split) -> Iterator[Fault]:
    """Yield the samples that are in two parts, or twice in one."""
    parts = _parts(split)
    uses = Counter(i for index in parts.values() for i in index.tolist())
    shared = [i for i, count in uses.items() if count > 1]
    if shared:
        found = [f"{samples.ids[i]} ({places(parts, i)})" for i in shared[:SHOWN]]
        yield "split", "each sample in one part, once", f"{len(shared):,} more often: {listed(found, len(shared))}"


def _parts(split: Split) -> dict[str, Index]:
    return {name: np.asarray(getattr(split, name)) for name in PARTS}


def _class_counts(dataset: Dataset, samples: Samples, index: Index) -> NDArray[np.int64]:
    return np.bincount(samples.labels.numpy()[index], minlength=dataset.task.num_classes)


def places(parts: Mapping[str, Index], sample: int) -> str:
    """Return the parts that hold a sample, as in `train, test` or `train twice`."""
    counts = {name: int((index == sample).sum()) for name, index in parts.items()}
    return ", ".join(f"{name}{' twice' if count > 1 else ''}" for name, count in counts.items() if count)


def absent_classes(dataset: Dataset, samples: Samples, split: Split) -> dict[str, list[str]]:
    """Return the classes of which a part has no sample, {part: names}, for parts that have any sample."""
    counts = {part: _class_counts(dataset, samples, index) for part, index in _parts(split).items() if len(index)}
    names = dataset.task.class_names
    return {
        part: [names[k] for k in np.flatnonzero(found == 0).tolist()]
        for part, found in counts.items()
        if not found.all()
    }


def constant_features(samples: Samples, split: Split) -> dict[str, str]:
    """Return what is the same in every training sample, {modality: in words}, of what is in memory.

    Features are the last axis of numbers (N, D) or (N, T, D); of pictures and token indices only the whole counts.
    """
    found = {}
    for modality, x in samples.inputs.items():
        if not isinstance(x, Tensor) or not len(split.train):
            continue
        rows = x[torch.from_numpy(np.asarray(split.train))]
        if bool((rows == rows[:1]).all()):
            found[modality] = "the same in every training sample"
        elif rows.is_floating_point() and rows.ndim in (2, 3):
            flat = rows.reshape(-1, rows.shape[-1])
            still = torch.nonzero(flat.amin(0) == flat.amax(0)).flatten().tolist()
            if still:
                which = listed([str(i) for i in still[:SHOWN]], len(still))
                found[modality] = f"{len(still):,} of {rows.shape[-1]:,} features constant in train: {which}"
    return found


def listed(names: Sequence[str], count: int | None = None) -> str:
    """Return the first names, with dots where there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if (count or len(names)) > SHOWN else "")
