"""Raw files of clips, and whether a store was made from them as they are now."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.inputs.store import read_shard

if TYPE_CHECKING:
    from benchmark.inputs.clips import Clip

SAMPLE = 8
"""Clips of a store that are compared with their raw files whenever it is opened."""

SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
"""What Windows puts into folders of pictures; elsewhere such files are hidden by a dot."""

Stats = dict[str, list[list[Any]] | None]


def files_of(path: Path) -> list[Path]:
    """Return the files that a path means: itself, or those of the folder in natural order, without hidden ones.

    Natural order is that of the numbers in their names: `frame_2`, then `frame_10`. What systems put beside files
    (`._a.jpg`, `.DS_Store`, `Thumbs.db`, `desktop.ini`) is left out.
    """
    if not path.is_dir():
        return [path]
    return sorted((file for file in path.iterdir() if _is_wanted(file)), key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[tuple[int, str, str], ...]:
    """Return what to sort names by so that numbers in them count as numbers."""
    pieces = re.split(r"(\d+)", name)
    return tuple((int(piece), "", piece) if piece.isdecimal() else (0, piece, "") for piece in pieces)


def _is_wanted(file: Path) -> bool:
    return not file.name.startswith(".") and file.name.lower() not in SYSTEM_FILES and file.is_file()


def stat_of(clip: Clip) -> Stats:
    """Return name, size and modification time of a clip's files, None for one that is not there."""
    stats: Stats = {}
    for name, path in clip.files.items():
        try:
            found = [(file.name, file.stat()) for file in files_of(path)]
            stats[name] = [[file, status.st_size, status.st_mtime_ns] for file, status in found]
        except OSError:
            stats[name] = None
    return stats


def digest_of(path: Path) -> str:
    """Return the sha256 of a file; of a folder, that of `sha256sum` on its files in their order."""
    if not path.is_dir():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest_of(file)}  {file.name}\n" for file in files_of(path)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def changed_clips(store: Path, num_shards: int, clips: Sequence[Clip], sample: int | None = SAMPLE) -> Iterator[Clip]:
    """Yield clips whose raw files are there and are not those that a store was made from.

    A file of the same name and size that was touched or copied is read. Files that are gone prove nothing: a store is
    used without them.

    Args:
        store: the folder of the store.
        num_shards: of the store.
        clips: all of the data set.
        sample: how many clips to look at, spread over all shards. None: all.
    """
    clip_of = {clip.id: clip for clip in clips}
    step = 1 if sample is None else -(-num_shards // sample)
    for number in range(0, num_shards, step):
        notes = read_shard(store / f"{number:05d}") or []
        for note in notes if sample is None else notes[:1]:
            clip = clip_of.get(note["id"])
            if clip is not None and note["reason"] is None and _has_changed(clip, note):
                yield clip


def _has_changed(clip: Clip, note: Mapping[str, Any]) -> bool:
    """Return whether any raw file of a clip that is there has other contents than its note in the store says."""
    now = stat_of(clip)
    for name, before in note["stat"].items():
        found = now.get(name)
        if not found or found == before:
            continue
        if before is None or [entry[:2] for entry in found] != [entry[:2] for entry in before]:
            return True
        try:
            if digest_of(clip.files[name]) != note["sha256"].get(name):
                return True
        except OSError:
            continue
    return False
