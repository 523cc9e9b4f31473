"""Data sets: samples, tasks, splits, and the contract of a data set plugin.

Shapes: N samples, B batch.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.errors import Problem, UserError
from benchmark.model import Encoder, Init, draw_weights
from benchmark.seeds import seed_of
from benchmark.settings import Settings

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What a method trains on in one step."""

    inputs: Mapping[str, Tensor]
    """One tensor (B, ...) for each modality, on the run's device."""
    labels: Tensor
    """Class indices (B,)."""
    index: Tensor
    """Position of each sample in the training split (B,), the same in every epoch."""


@dataclass(frozen=True)
class Modality:
    """One input of a task and the encoder that reads it."""

    shape: tuple[int, ...]
    """Shape of one sample after `Dataset.transform`."""
    encoder: Callable[[], Encoder]


@dataclass(frozen=True)
class TaskSpec:
    """What a method may know of the data: names, shapes, classes, encoders."""

    modalities: Mapping[str, Modality]
    class_names: Sequence[str]
    init: Init = "default"
    """How random weights start; the recipe's, set when a method is built."""

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def unknown(self, *names: str | None) -> str | None:
        """Return a sentence about those of `names` that are no modality of the task; None if all are, or are None."""
        wrong = sorted(repr(name) for name in names if name not in (None, *self.modalities))
        return f"no modality {', '.join(wrong)}; there are {', '.join(self.modalities)}" if wrong else None

    def build_encoders(self, modalities: Sequence[str] | None = None) -> dict[str, Encoder]:
        """Build encoders for all modalities, or for those named.

        An encoder's initial weights depend on the run's seed and the modality's name alone, so every method
        of a comparison starts from the same encoders, and building them leaves the global generator alone.
        """
        encoders = {}
        for name in self.modalities if modalities is None else modalities:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(torch.initial_seed(), "encoder", name))
                encoders[name] = self.modalities[name].encoder()
                if self.init == "released" and not encoders[name].pretrained:
                    draw_weights(encoders[name])
        return encoders


class Rows(ABC):
    """One modality of many samples, read from disk when asked for: for what may not fit in memory."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: Index) -> Tensor:
        """Return the samples at `index`, in its order: (B, ...). May be called from several threads."""

    @abstractmethod
    def subset(self, index: Index) -> Rows:
        """Return the samples at `index` and no others."""


@dataclass(frozen=True)
class Samples:
    """Labelled samples, before `Dataset.transform`."""

    inputs: Mapping[str, Tensor | Rows]
    """One tensor (N, ...) for each modality, or what reads it."""
    labels: Tensor
    """Class indices (N,), int64."""
    ids: Sequence[str]
    """A name for each sample, unique, stable across machines."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Index) -> dict[str, Tensor]:
        """Return the inputs of the samples at `index`, {modality: (B, ...)}."""
        rows = torch.from_numpy(index)
        return {m: x[rows] if isinstance(x, Tensor) else x.take(index) for m, x in self.inputs.items()}

    def subset(self, index: Index) -> Samples:
        """Return the samples at `index` and no others; tensors are copied."""
        rows = torch.from_numpy(index)
        return Samples(
            {m: x[rows] if isinstance(x, Tensor) else x.subset(index) for m, x in self.inputs.items()},
            self.labels[rows],
            [self.ids[i] for i in index],
        )


@dataclass(frozen=True)
class Split:
    """Which samples train, select and test. Disjoint."""

    train: Index
    valid: Index
    test: Index

    def digest(self, ids: Sequence[str]) -> str:
        """Return a digest of which sample is in which part, in which order."""
        parts = [[ids[i] for i in part] for part in (self.train, self.valid, self.test)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


class Dataset(ABC):
    """A data set plugin: one file, one class.

    Must implement: `task`, `fingerprint`, `load`, `split`. May override: `transform` and `weights`, and set `num_draws`
    for random augmentation; `published`, `texts` and `keys`, for an audit. Must not know: methods, training, seeds of
    runs.
    """

    about: ClassVar[str]
    """Source and licence in a sentence."""
    version: ClassVar[int] = 1
    """Version of the numbers that the data set makes: raise it when they change. Part of a run's id."""
    folder: ClassVar[str] = ""
    """Name of its folder under the data root; empty: the plugin's own name."""
    recipe: ClassVar[Mapping[str, Any]] = {}
    """What the `unified` protocol changes for this data set: epochs, batch size, optimizer ..."""
    num_draws: ClassVar[int] = 0
    """How many uniform numbers `transform` wants for each training sample and epoch."""

    class Config(Settings):
        """Settings that change the data or the split."""

    config: Config

    def __init__(self, config: Config, root: Path | None = None) -> None:
        """Keep the settings and the folder; reads nothing yet.

        Args:
            config: this class's Config.
            root: the folder of this data set's files; None if no data root is known.
        """
        self.config = config
        self.root = root

    @property
    @abstractmethod
    def task(self) -> TaskSpec:
        """The task, known without reading any file."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a digest of the raw data. Raises `UserError` when files are missing."""

    def weights(self) -> Mapping[str, str]:
        """Return a digest of the pretrained weights that each modality's encoder starts from, where it does."""
        return {}

    @abstractmethod
    def load(self) -> Samples:
        """Return every sample. Raises `UserError` when files are missing or corrupt."""

    @abstractmethod
    def split(self, samples: Samples, valid_share: float) -> Split:
        """Divide the samples. Where no validation split is published, hold out `valid_share` of train (`hold_out`).

        With a share of 0 all of the official train part trains, and validation has what is published beside it, if any.
        """

    @property
    def published(self) -> Mapping[str, int | Mapping[str, int]]:
        """How many samples each official part (train, valid, test) has, or each class of it; for `bench data check`."""
        return {}

    def texts(self) -> Mapping[str, Sequence[str]]:
        """Return the text of each sample by modality, for `bench data check`.

        As people wrote it, before tokens are made of it; in the order of `load`, for raw media in that of the lists.
        """
        return {}

    def keys(self) -> Mapping[str, Sequence[str]]:
        """Return what samples may share, such as {"speaker": [...]}, for `bench data check`; order as in `texts`.

        The empty string means unknown. Parts are expected to share no value of a key that `config.split` names.
        """
        return {}

    def transform(self, inputs: Mapping[str, Tensor], draws: Tensor | None) -> dict[str, Tensor]:
        """Turn raw inputs into what the encoders read, for a whole batch, on the run's device.

        Each sample's result depends on that sample (and its draws) alone.

        Args:
            inputs: {modality: (B, ...)} as loaded.
            draws: uniform numbers in [0, 1), (B, num_draws), for training; None for evaluation.
        """
        return dict(inputs)


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Bring a tensor of the CPU to a device; to a GPU through pinned memory, so that the host need not wait for it."""
    return x if device.type == "cpu" else x.pin_memory().to(device, non_blocking=True)


def hold_out(train: Index, labels: Tensor, share: float, groups: Sequence[str] | None = None) -> tuple[Index, Index]:
    """Divide training samples into (train, valid), the same for every run.

    Args:
        train: indices of the training samples.
        labels: class of every sample (N,).
        share: part that goes to validation, in [0, 1); 0 for none.
        groups: if given, a group name for every sample (speaker, actor): no group is on both sides.
            Otherwise the division is stratified by class.

    Raises:
        UserError: when the training samples are too few for the share.
    """
    if not share:
        return np.sort(train), np.array([], dtype=np.int64)
    from sklearn.model_selection import GroupShuffleSplit, StratifiedShuffleSplit

    seed = seed_of("validation") % 2**32
    try:
        if groups is None:
            splitter = StratifiedShuffleSplit(1, test_size=share, random_state=seed)
            parts = splitter.split(train, labels[torch.from_numpy(train)])
        else:
            grouped = GroupShuffleSplit(1, test_size=share, random_state=seed)
            parts = grouped.split(train, groups=[groups[i] for i in train])
        kept, held = next(parts)
    except ValueError as error:
        counts = torch.bincount(labels[torch.from_numpy(train)])
        alone = [f"class {k}" for k in torch.nonzero(counts == 1).flatten().tolist()]
        got = f"a single one of {', '.join(alone)}" if groups is None and alone else str(error)
        raise UserError(
            Problem("validation split", f"enough training samples of each class to hold out a share of {share}", got)
        ) from None
    return np.sort(train[kept]), np.sort(train[held])
