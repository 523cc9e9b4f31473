"""A cache of what is slow to compute from raw data: digests of files, decoded arrays. Deleting it loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmark.records import write_atomic

Arrays = dict[str, NDArray[np.generic]]


def cache_root() -> Path:
    """Return the cache folder: `$BENCH_CACHE`, else `modalbench` in the user's cache folder."""
    if given := os.environ.get("BENCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modalbench"


def digest_files(paths: Sequence[Path], root: Path) -> str:
    """Return a digest of names and contents, read again only when a size or a modification time changes.

    Args:
        paths: the files, all below `root`.
        root: their names are taken relative to it, so moving the folder changes nothing.
    """
    stats = [(path, path.stat()) for path in sorted(paths)]

    def measure() -> str:
        digest = hashlib.sha256()
        for path, _ in stats:
            digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    return cached_text("digests", [(str(path), s.st_size, s.st_mtime_ns) for path, s in stats], measure)


def cached_text(kind: str, key: object, build: Callable[[], str]) -> str:
    """Return a text from the cache, or build and keep it.

    Args:
        kind: what it is, for the folder's name.
        key: everything it depends on, in JSON types.
        build: makes it.
    """
    memo = cache_root() / kind / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if memo.exists():
        return memo.read_text(encoding="utf-8")
    text = build()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        write_atomic(memo, text.encode())
    return text


def cached_arrays(name: str, key: str, build: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
    """Return arrays from the cache, or build and keep them.

    Args:
        name: what they are, for the folder's name.
        key: digest of everything they depend on.
        build: makes them.
    """
    folder = cache_root() / f"{name}-{key}"
    if folder.is_dir():
        return {path.stem: np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))}
    arrays = dict(build())
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time and nothing else
        _store(arrays, folder)
    return arrays


def _store(arrays: Mapping[str, NDArray[np.generic]], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        temporary.rename(folder)  # fails if another process was first, whose arrays are the same
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
