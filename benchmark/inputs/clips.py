"""Data sets that are decoded once (`bench data prepare`) and then read from their packed store."""

from __future__ import annotations

import hashlib
import json
import shlex
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from benchmark.cache import cache_root
from benchmark.data import Dataset, Rows, Samples, Split, hold_out
from benchmark.errors import Problem, UserError
from benchmark.inputs.encoded import EncodedDataset
from benchmark.inputs.raw import changed_clips
from benchmark.inputs.store import Arrays, Packed
from benchmark.settings import label

Part = Literal["train", "valid", "test"]
SCHEMA = 1
"""Version of a store's layout."""


@dataclass(frozen=True)
class Clip:
    """One sample as the official lists give it."""

    id: str
    label: int
    part: Part
    files: Mapping[str, Path]
    """Absolute paths of its raw files; a folder means all files in it."""
    group: str = ""
    """Its speaker, actor or subject; empty where unknown."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else the lists say that decoding or the inputs depend on: a window of frames, a text."""


class ClipDataset(EncodedDataset):
    """A data set of raw media.

    Must implement: `task`, `clips`, `decode`, `inputs`. May override: `decoding`, `split`, `transform`.
    """

    advice: ClassVar[str] = ""
    """Where to get the raw files and how to arrange them, for messages."""
    version: ClassVar[int] = 1
    """Raise it when `decode` returns other arrays than before."""

    @cached_property
    @abstractmethod
    def clips(self) -> Sequence[Clip]:
        """All samples of the official lists, in their order. Raises `UserError` when a list is missing or wrong."""

    @abstractmethod
    def decode(self, clip: Clip) -> Arrays:
        """Return a clip's arrays, {modality: (length, ...)}. Raises `MediaError` if its files do not allow it."""

    def decoding(self) -> Mapping[str, Any]:
        """Return the settings that change what `decode` returns."""
        return {}

    @abstractmethod
    def inputs(self, packed: Mapping[str, Packed], clips: Sequence[Clip]) -> Mapping[str, Tensor | Rows]:
        """Return what `transform` will get of each modality, from the packed arrays of these clips."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.config, self.root)  # without the lists: workers get the clips they need

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    @cached_property
    def key(self) -> str:
        """Name of the data set, and a digest of its lists and the settings of decoding."""
        listed = [[c.id, c.label, c.part, sorted(c.files), c.group, dict(c.facts)] for c in self.clips]
        content = [SCHEMA, self.version, list(self.task.class_names), dict(self.decoding()), listed]
        return f"{self.name}-{hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]}"

    @cached_property
    def store(self) -> Path:
        """The folder of the packed store: one for each key and folder of raw files, which lists do not tell apart.

        Stores of before that was so have no root in their names; one that was made of this root is used as it is.
        """
        folder, root = cache_root() / "prepared", _resolved(self.root)
        old = folder / self.key
        if old.exists() and _resolved(_read_manifest(old).get("root")) == root:
            return old
        return folder / f"{self.key}-{hashlib.sha256(root.encode()).hexdigest()[:8]}"

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """What `bench data prepare` says of the store.

        Raises:
            UserError: when the data set is not prepared, was prepared from other raw files than are there now, or clips
                were missing and that was not allowed.
        """
        where = f"data set {self.name}"
        asked = shlex.quote(label(self.name, self.config.changed()))
        advice = f"Run: bench data prepare {asked} --root {self.root.parent if self.root else 'DIR'}"
        manifest = _read_manifest(self.store)
        if not manifest:
            got = f"none in {self.store}{self._others()}"
            raise UserError(Problem(where, "a prepared store", got, advice))
        if manifest["failed"] and not manifest["allow_missing"]:
            got = f"{len(manifest['failed'])} missing or damaged, the first {manifest['failed'][0]['id']}"
            raise UserError(Problem(where, "every clip of the official lists", got, f"{advice} --allow-missing"))
        if not manifest["modalities"]:
            raise UserError(Problem(where, "clips that can be decoded", f"none in {self.store}", advice))
        if changed := next(changed_clips(self.store, manifest["num_shards"], self.clips), None):
            got = f"other ones now, first those of clip {changed.id}"
            raise UserError(Problem(where, f"the raw files that {self.store} was made from", got, advice))
        return manifest

    def _others(self) -> str:
        """Say which other folders of raw files with the same lists are prepared."""
        found = (_read_manifest(path).get("root") for path in self.store.parent.glob(f"{self.key}*"))
        roots = sorted({root for root in found if root})
        return f"; what is prepared is of {', '.join(roots)}" if roots else ""

    def fingerprint(self) -> str:
        return str(self.manifest["digest"])

    def load(self) -> Samples:
        import pyarrow.parquet as pq

        failed = {entry["id"] for entry in self.manifest["failed"]}
        clips = [clip for clip in self.clips if clip.id not in failed]
        places = [f"{m}.{name}" for m in self.manifest["modalities"] for name in ("shard", "offset", "length")]
        table = pq.read_table(self.store / "index.parquet", columns=places)
        files = [self.store / f"{shard:05d}" for shard in range(self.manifest["num_shards"])]
        packed = {}
        for modality, layout in self.manifest["modalities"].items():
            column = {name: table[f"{modality}.{name}"].to_numpy() for name in ("shard", "offset", "length")}
            packed[modality] = Packed(
                [folder / f"{modality}.bin" for folder in files],
                column["shard"],
                column["offset"],
                column["length"],
                tuple(layout["shape"]),
                np.dtype(layout["dtype"]),
            )
        labels = torch.tensor([clip.label for clip in clips])
        return Samples(self.inputs(packed, clips), labels, [clip.id for clip in clips])

    def split(self, samples: Samples, valid_share: float) -> Split:
        clip_of = {clip.id: clip for clip in self.clips}
        parts = np.array([clip_of[name].part for name in samples.ids])
        train, valid, test = (np.flatnonzero(parts == part) for part in ("train", "valid", "test"))
        if not len(valid):
            train, valid = hold_out(train, samples.labels, valid_share, self.groups(samples))
        return Split(train, valid, test)

    def keys(self) -> Mapping[str, Sequence[str]]:
        groups = [clip.group for clip in self.clips]
        return {"group": groups} if any(groups) else {}

    def groups(self, samples: Samples) -> Sequence[str] | None:
        """Return a group for each sample that validation must not share with train, None for a stratified share."""
        return None


def _resolved(root: object) -> str:
    return str(Path(str(root)).resolve()) if root else ""


def _read_manifest(store: Path) -> dict[str, Any]:
    """Return the manifest of a store, empty where there is none."""
    try:
        manifest: dict[str, Any] = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest


def no_files(dataset: Dataset, layout: str, advice: str) -> UserError:
    """Return the error for a data set whose folder is not there."""
    got = "no data root (--data-root or $BENCH_DATA)" if dataset.root is None else f"no folder {dataset.root}"
    return UserError(Problem(f"data set {type(dataset).__name__.lower()}", layout, got, advice))
