"""A packed store: decoded arrays of many samples in a few files, written once, read by position.

Rows are read with `pread`, not mapped: what has been read does not count as the process's memory, whatever the size
of the set.

    <store>/00017/video.bin      the arrays of some samples, one after the other
    <store>/00017/index.json     their shapes and digests; its presence means that the shard is whole
    <store>/index.parquet        where everything is
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmark.data import Index, Rows

Arrays = Mapping[str, NDArray[Any]]
INDEX = "index.json"
BLANK_LEVELS = 8
"""Levels of 255 between the darkest and the brightest pixel of frames that show nothing."""


def write_shard(folder: Path, items: Iterable[tuple[Mapping[str, Any], Arrays]]) -> list[dict[str, Any]]:
    """Write the arrays of some samples into a new folder, in one step.

    Args:
        folder: must not exist.
        items: for each sample what to note of it, and its arrays {modality: (length, ...)}, perhaps none.

    Returns:
        The notes, with shape, dtype, offset and digest of each array, and whether it `is_blank`, under `arrays`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    notes = []
    files: dict[str, Any] = {}
    try:
        for note, arrays in items:
            places = {}
            for modality, array in arrays.items():
                if modality not in files:
                    files[modality] = (temporary / f"{modality}.bin").open("wb")
                file = files[modality]
                raw = np.ascontiguousarray(array).tobytes()
                places[modality] = {
                    "shape": array.shape,
                    "dtype": array.dtype.str,
                    "offset": file.tell(),
                    "sha256": hashlib.sha256(raw).hexdigest(),
                    "blank": is_blank(array),
                }
                file.write(raw)
            notes.append({**note, "arrays": places})
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        (temporary / INDEX).write_text(json.dumps(notes), encoding="utf-8")
        temporary.rename(folder)
    finally:
        for file in files.values():
            file.close()
        shutil.rmtree(temporary, ignore_errors=True)
    return notes


def is_blank(array: NDArray[Any]) -> bool:
    """Return whether all values of an array are the same, as of silence or black frames.

    Bytes are pixels, which compression changes by a few levels.
    """
    if not array.size:
        return True
    return bool(int(array.max()) - int(array.min()) <= BLANK_LEVELS if array.dtype == np.uint8 else np.ptp(array) == 0)


def read_shard(folder: Path) -> list[dict[str, Any]] | None:
    """Return the notes of a whole shard, None where there is none or its files are not as long as they should be."""
    try:
        notes: list[dict[str, Any]] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        ends: dict[str, int] = {}
        for note in notes:
            for modality, place in note["arrays"].items():
                ends[modality] = place["offset"] + _num_bytes(place["shape"], place["dtype"])
        whole = all((folder / f"{modality}.bin").stat().st_size == end for modality, end in ends.items())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return notes if whole else None


def _num_bytes(shape: Sequence[int], dtype: str) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


@dataclass(frozen=True)
class Packed:
    """Where the arrays of one modality are. Arrays differ in their first axis (frames, samples of sound) alone."""

    files: Sequence[Path]
    file: NDArray[np.int32]
    """Which file each array is in, (N,)."""
    offset: NDArray[np.int64]
    """Where it begins, in bytes (N,)."""
    length: NDArray[np.int64]
    """Size of its first axis (N,)."""
    shape: tuple[int, ...]
    """Its other axes."""
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return len(self.offset)

    def subset(self, index: Index) -> Packed:
        chosen = replace(self, file=self.file[index], offset=self.offset[index], length=self.length[index])
        chosen.__dict__["_descriptors"] = self._descriptors  # open files are shared
        return chosen

    @cached_property
    def row_bytes(self) -> int:
        """Size of one step along the first axis."""
        return _num_bytes(self.shape, self.dtype.str)

    @cached_property
    def _descriptors(self) -> _Descriptors:
        return _Descriptors(self.files)

    def read(self, sample: int, start: int, stop: int, into: NDArray[Any]) -> None:
        """Read [start, stop) of a sample's first axis."""
        view = memoryview(into.data).cast("B")
        count = os.preadv(self._descriptors.of(int(self.file[sample])), [view],
                          int(self.offset[sample]) + start * self.row_bytes)  # fmt: skip
        if count != len(view):
            raise OSError(f"{self.files[self.file[sample]]} ends early: it changed since it was prepared")


class _Descriptors:
    """Files that stay open; a process forked or spawned from this one opens its own."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def of(self, number: int) -> int:
        with self._lock:
            if number not in self._open:
                self._open[number] = os.open(self._files[number], os.O_RDONLY | os.O_CLOEXEC)
            return self._open[number]

    def __reduce__(self) -> tuple[type[_Descriptors], tuple[Sequence[Path]]]:
        return type(self), (self._files,)

    def __del__(self) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)


@dataclass(frozen=True)
class Tiled(Rows):
    """Sound of any length, repeated from its beginning until it fills `samples` and cut there: (B, samples)."""

    packed: Packed
    samples: int

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, index: Index) -> Tensor:
        out = np.empty((len(index), self.samples), self.packed.dtype)
        for row, sample in zip(out, index, strict=True):
            length = min(int(self.packed.length[sample]), self.samples)
            self.packed.read(int(sample), 0, length, row[:length])
            for start in range(length, self.samples, length):
                row[start : start + length] = row[: min(length, self.samples - start)]
        return torch.from_numpy(out)

    def subset(self, index: Index) -> Tiled:
        return replace(self, packed=self.packed.subset(index))


@dataclass(frozen=True)
class Spread(Rows):
    """`frames` of a clip's frames: the middles of as many equal parts, or the first ones: (B, frames, ...).

    Of a clip with fewer frames, some are taken more than once.
    """

    packed: Packed
    frames: int
    first: bool = False

    def __len__(self) -> int:
        return len(self.packed)

    def take(self, index: Index) -> Tensor:
        out = np.empty((len(index), self.frames, *self.packed.shape), self.packed.dtype)
        for clip, sample in zip(out, index, strict=True):
            for into, frame in zip(clip, spread(int(self.packed.length[sample]), self.frames, self.first), strict=True):
                self.packed.read(int(sample), int(frame), int(frame) + 1, into)
        return torch.from_numpy(out)

    def subset(self, index: Index) -> Spread:
        return replace(self, packed=self.packed.subset(index))


def spread(length: int, count: int, first: bool = False) -> NDArray[np.int64]:
    """Return which `count` frames of `length` frames `Spread` takes."""
    if first:
        return np.minimum(np.arange(count), length - 1)
    return (2 * np.arange(count) + 1) * length // (2 * count)
