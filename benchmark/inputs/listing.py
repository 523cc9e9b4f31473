"""The samples of a data set as its lists give them: known before raw media are decoded, or even there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmark.data import Dataset, Index, Samples, Split
from benchmark.errors import Problem, UserError
from benchmark.inputs.clips import ClipDataset
from benchmark.loading import PARTS, label_faults, position_faults, refuse


@dataclass(frozen=True)
class Listing:
    """The samples of a data set as its lists give them, and the part of each."""

    dataset: Dataset
    samples: Samples
    """Without inputs for raw media: nothing is decoded."""
    split: Split
    valid_share: float
    held_out: bool
    """Validation was taken from the official train part."""

    def part(self, name: str) -> Index:
        found: Index = getattr(self.split, name)
        return found

    @cached_property
    def official(self) -> dict[str, Index]:
        """The published parts: train as it was before validation was held out from it."""
        if not self.held_out:
            return {name: self.part(name) for name in PARTS}
        return {"train": np.concatenate([self.split.train, self.split.valid]), "test": self.split.test}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self.samples.labels.numpy()
        return labels

    @cached_property
    def texts(self) -> Mapping[str, Sequence[str]]:
        return self._whole("texts", self.dataset.texts())

    @cached_property
    def keys(self) -> Mapping[str, Sequence[str]]:
        return self._whole("keys", self.dataset.keys())

    @cached_property
    def manifest(self) -> Mapping[str, Any] | None:
        """The manifest of the store, if the raw media are or can be prepared, even if clips failed."""
        if not isinstance(self.dataset, ClipDataset):
            return None
        try:
            manifest: dict[str, Any] = json.loads((self.dataset.store / "manifest.json").read_text(encoding="utf-8"))
            return manifest
        except (OSError, ValueError, UserError):  # what decoding needs may be missing too, weights for example
            return None

    @property
    def usable(self) -> bool:
        """Whether a run can be started without any raw file."""
        return self.manifest is not None and (self.manifest["allow_missing"] or not self.manifest["failed"])

    def in_part(self, name: str) -> Index:
        """Return the samples of a published part, none where there is no such part."""
        return self.official.get(name, np.array([], dtype=np.int64))

    def counts(self, index: Index) -> dict[str, int]:
        """Return how many of these samples are of each class."""
        names = self.dataset.task.class_names
        return dict(zip(names, np.bincount(self.labels[index], minlength=len(names)).tolist(), strict=True))

    def values(self, key: str, index: Index) -> set[str]:
        """Return the known values of a key among these samples."""
        return {self.keys[key][i] for i in index} - {""}

    def name(self, sample: int) -> str:
        return f"{self.samples.ids[sample]} ({self.dataset.task.class_names[self.labels[sample]]})"

    def _whole(self, method: str, values: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
        for name, column in values.items():
            if len(column) != len(self.samples):
                where = f"data set {type(self.dataset).__name__}, {method}(), {name}"
                raise UserError(Problem(where, f"{len(self.samples):,} values", f"{len(column):,}"))
        return values


def read_listing(dataset: Dataset, valid_share: float) -> Listing:
    """Read a data set's lists. Raises `UserError` when they or the files they need are missing or wrong."""
    if isinstance(dataset, ClipDataset):
        labels = torch.tensor([clip.label for clip in dataset.clips], dtype=torch.int64)
        samples = Samples({}, labels, [clip.id for clip in dataset.clips])
    else:
        samples = dataset.load()
    refuse(dataset, *label_faults(dataset, samples))
    split = dataset.split(samples, valid_share)
    refuse(dataset, *position_faults(samples, split))
    return Listing(dataset, samples, split, valid_share, _is_held_out(dataset, samples, valid_share, len(split.valid)))


def _is_held_out(dataset: Dataset, samples: Samples, valid_share: float, num_valid: int) -> bool:
    """Return whether the size of validation follows the share asked for."""
    try:
        return len(dataset.split(samples, (1 + valid_share) / 2).valid) != num_valid
    except UserError:  # too few samples for such a share
        return True
