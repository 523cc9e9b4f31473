"""The files of a data set's folder, and which of its samples have the same contents."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmark.inputs.clips import ClipDataset
from benchmark.inputs.listing import Listing
from benchmark.inputs.raw import files_of

PLAYABLE = frozenset(
    (".avi", ".flac", ".flv", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpg", ".ogg", ".wav", ".webm")
)
MEDIA = PLAYABLE | {".bmp", ".gif", ".jpeg", ".jpg", ".npy", ".png", ".webp"}
HEAD = 16_384
"""Bytes read first to tell files of equal size apart, before whole files are."""

Place = tuple[int, int]
"""Device and number of a file: the same whatever the links that lead to it."""


def place(path: Path) -> Place:
    """Return where a file is. Raises `OSError` when it is not there."""
    status = path.stat()
    return status.st_dev, status.st_ino


def unusable(path: Path) -> str:
    """Return why a file or folder of a list cannot be used, nothing if it can."""
    try:
        if not path.exists():
            return "missing"
        files = files_of(path)
        if not files or not all(file.is_file() and file.stat().st_size for file in files):
            return "empty"
        return "" if all(os.access(file, os.R_OK) for file in files) else "not permitted"
    except OSError as error:
        return str(error.strerror).lower()


def walk(root: Path) -> Iterator[Path]:
    """Yield every file below a folder; linked folders are entered too, each once, so that loops end."""
    seen, folders = set(), [root]
    while folders:
        folder = folders.pop()
        try:
            here, entries = place(folder), sorted(folder.iterdir())
        except OSError:  # not permitted, or removed since it was listed
            continue
        if here not in seen:
            seen.add(here)
            folders += [entry for entry in entries if entry.is_dir()]
            yield from (entry for entry in entries if entry.is_file())


def digest_samples(listing: Listing) -> Mapping[str, Sequence[str]]:
    """Return a digest of each sample's contents by modality, empty where there are no contents.

    Of raw media, what is prepared is compared, else the raw files. Modalities with texts are left out.
    """
    dataset = listing.dataset
    if isinstance(dataset, ClipDataset):
        return _prepared(dataset) if listing.usable else _raw(dataset)
    digests: dict[str, list[str]] = defaultdict(list)
    for start in range(0, len(listing.samples), 256):
        index = np.arange(start, min(start + 256, len(listing.samples)))
        for modality, rows in listing.samples.take(index).items():
            if modality not in listing.texts:
                digests[modality] += [hashlib.sha256(row.numpy().tobytes()).hexdigest() for row in rows]
    return digests


def blank_clips(store: Path) -> Mapping[str, Sequence[str]]:
    """Return the clips of a store that hold one value throughout, by modality; of an older store nothing is known."""
    import pyarrow.parquet as pq

    table = pq.read_table(store / "index.parquet")
    names = {name.removesuffix(".blank"): name for name in table.column_names if name.endswith(".blank")}
    columns = {m: zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True) for m, name in names.items()}
    return {m: [clip for clip, blank in column if blank] for m, column in columns.items()}


def _prepared(dataset: ClipDataset) -> Mapping[str, Sequence[str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(dataset.store / "index.parquet")
    digests = {}
    for modality in dataset.manifest["modalities"]:
        found = dict(zip(table["id"].to_pylist(), table[f"{modality}.sha256"].to_pylist(), strict=True))
        digests[modality] = [found.get(clip.id, "") for clip in dataset.clips]
    return digests


def _raw(dataset: ClipDataset) -> Mapping[str, Sequence[str]]:
    """Compare raw files; those that a clip names frame0, frame1 ... count as one."""
    files: dict[str, list[list[Path]]] = defaultdict(lambda: [[] for _ in dataset.clips])
    for position, clip in enumerate(dataset.clips):
        for name, path in clip.files.items():
            found = [path] if unusable(path) else files_of(path)
            files[name.rstrip("0123456789")][position] += found
    return {name: _tell_apart(column) for name, column in files.items()}


def _tell_apart(samples: Sequence[Sequence[Path]]) -> list[str]:
    """Return a digest of the files of each sample, empty where one is missing. Reads no more than it must."""
    measures: Sequence[Callable[[Path], str]] = (
        lambda path: str(path.stat().st_size),
        lambda path: _digest(path, HEAD),
        lambda path: _digest(path, None),
    )
    alike = [i for i, files in enumerate(samples) if files and not any(map(unusable, files))]
    texts = [""] * len(samples)
    for measure in measures:
        for i in alike:
            texts[i] += " ".join(map(measure, samples[i])) + ";"
        counts = Counter(texts[i] for i in alike)
        alike = [i for i in alike if counts[texts[i]] > 1]
    return texts


def _digest(path: Path, size: int | None) -> str:
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest() if size else hashlib.file_digest(file, "sha256").hexdigest()
