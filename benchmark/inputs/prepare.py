"""From raw media to a packed store: in parallel, restartable after a kill at any point, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from benchmark.errors import Problem, UserError
from benchmark.inputs.clips import SCHEMA, Clip, ClipDataset
from benchmark.inputs.lists import raise_some
from benchmark.inputs.media import MediaError
from benchmark.inputs.raw import digest_of, stat_of
from benchmark.inputs.store import Arrays, read_shard, write_shard
from benchmark.records import write_atomic

MAX_SHARDS = 512
"""Folders of a store; a shard is what a restart does again."""
DECODERS = ("av", "pillow", "soundfile", "soxr", "torchvision")
"""Libraries whose versions are recorded in the manifest."""

Note = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """The outcome of a preparation."""

    store: Path
    num_clips: int
    num_decoded: int
    """Clips decoded now; the others were in the store already."""
    failed: Sequence[Note]
    """{"id", "class", "part", "reason"} of clips that are missing or damaged."""
    num_bytes: int


def prepare(
    dataset: ClipDataset, jobs: int, allow_missing: bool, progress: Callable[[int, int], None] | None = None
) -> Prepared:
    """Decode every clip of a data set that its store does not hold yet.

    The store's bytes depend neither on `jobs` nor on interruptions.

    Args:
        dataset: with its lists and raw files in place.
        jobs: processes.
        allow_missing: let the data set be used without the clips that are missing or damaged.
        progress: called with (clips done, clips in all).

    Raises:
        UserError: when lists are wrong, another process is preparing the same store, or the disk is full.
    """
    clips, store = dataset.clips, dataset.store
    size = max(8, -(-len(clips) // MAX_SHARDS))
    shards = [clips[start : start + size] for start in range(0, len(clips), size)]
    try:
        store.mkdir(parents=True, exist_ok=True)
        with FileLock(store / "lock", timeout=0):
            for leftover in store.glob(".*"):  # of a preparation that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            notes, num_decoded = _decode_all(dataset, shards, jobs, progress)
            return _finish(dataset, notes, num_decoded, allow_missing)
    except Timeout:
        where = f"data set {dataset.name}"
        raise UserError(Problem(where, "one preparation at a time", f"another one is at work in {store}")) from None
    except BrokenProcessPool:
        got = "a process was killed, likely out of memory"
        advice = "Give the command again with a smaller --jobs; what is decoded is kept."
        raise UserError(Problem(f"data set {dataset.name}", "decoding to go on", got, advice)) from None
    except OSError as error:
        got = f"{error.strerror or error} ({error.filename or store})"
        advice = "Make room or set $BENCH_CACHE to another folder, and give the command again; what is decoded is kept."
        raise UserError(Problem(f"data set {dataset.name}", "a store that can be written", got, advice)) from None


def _decode_all(
    dataset: ClipDataset, shards: Sequence[Sequence[Clip]], jobs: int, progress: Callable[[int, int], None] | None
) -> tuple[list[Note], int]:
    """Return the notes of all clips in order, and how many were decoded now."""
    kept = {number: _kept(dataset, number, shard) for number, shard in enumerate(shards)}
    missing = [number for number, notes in kept.items() if notes is None]
    total, done = sum(map(len, shards)), sum(len(notes) for notes in kept.values() if notes is not None)
    tell = progress or (lambda done, total: None)
    tell(done, total)
    for number, notes in _decoded(dataset, shards, missing, jobs):
        kept[number] = notes
        done += len(notes)
        tell(done, total)
    notes = [{**note, "shard": number} for number in range(len(shards)) for note in kept[number] or ()]
    return notes, sum(len(shards[number]) for number in missing)


def _kept(dataset: ClipDataset, number: int, shard: Sequence[Clip]) -> list[Note] | None:
    """Return the notes of a shard that is whole and made from the raw files as they are now."""
    notes = read_shard(dataset.store / f"{number:05d}")
    if notes is None or [note["id"] for note in notes] != [clip.id for clip in shard]:
        return None
    return notes if all(note["stat"] == stat_of(clip) for note, clip in zip(notes, shard, strict=True)) else None


def _decoded(
    dataset: ClipDataset, shards: Sequence[Sequence[Clip]], missing: Sequence[int], jobs: int
) -> Iterator[tuple[int, list[Note]]]:
    """Decode shards in parallel; yield (number, notes) as they get ready."""
    if not missing:
        return
    # forked, so that a plugin that was loaded from a path is there without importing it again
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(min(jobs, len(missing)), context, _use_one_thread) as pool:
        waiting = iter(missing)
        running: dict[Future[list[Note]], int] = {}
        try:
            while True:
                for number in waiting:
                    folder = dataset.store / f"{number:05d}"  # known here: it depends on all clips
                    running[pool.submit(partial(_decode_shard, dataset, folder, shards[number]))] = number
                    if len(running) >= 2 * jobs:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    torch.set_num_threads(1)


def _decode_shard(dataset: ClipDataset, folder: Path, shard: Sequence[Clip]) -> list[Note]:
    shutil.rmtree(folder, ignore_errors=True)  # made from raw files that have changed since
    return write_shard(folder, (_decode_clip(dataset, clip) for clip in shard))


def _decode_clip(dataset: ClipDataset, clip: Clip) -> tuple[Note, Arrays]:
    note: Note = {"id": clip.id, "stat": stat_of(clip), "sha256": {}, "reason": None}
    lost = [str(path) for path in clip.files.values() if not path.exists()]
    if lost:
        return {**note, "reason": f"no file {', '.join(lost)}"}, {}
    try:
        note["sha256"] = {name: digest_of(path) for name, path in clip.files.items()}
        arrays = dataset.decode(clip)
        _check_arrays(arrays)
        return note, arrays
    except MediaError as error:
        return {**note, "reason": str(error)}, {}
    except OSError as error:  # a raw file that may not be read, not the store
        return {**note, "reason": f"{error.filename}: {(error.strerror or str(error)).lower()}"}, {}


def _check_arrays(arrays: Arrays) -> None:
    """Raise `MediaError` for arrays that no run can use, whatever decoded them."""
    for modality, array in arrays.items():
        if not array.size:
            raise MediaError(f"{modality} decodes to nothing, shape {array.shape}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MediaError(f"{modality} has values that are not finite")


def _finish(dataset: ClipDataset, notes: Sequence[Note], num_decoded: int, allow_missing: bool) -> Prepared:
    """Write index.parquet and, last, manifest.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, names = dataset.store, dataset.task.class_names
    failed = [
        {"id": clip.id, "class": names[clip.label], "part": clip.part, "reason": note["reason"]}
        for clip, note in zip(dataset.clips, notes, strict=True)
        if note["reason"] is not None
    ]
    whole = [(clip, note) for clip, note in zip(dataset.clips, notes, strict=True) if note["reason"] is None]
    if allow_missing:
        _refuse_nothing(dataset, failed)
    modalities = {m: _layout(dataset, m, whole) for m in (whole[0][1]["arrays"] if whole else ())}
    columns: dict[str, Any] = {
        "id": [clip.id for clip, _ in whole],
        "class": [names[clip.label] for clip, _ in whole],
        "part": [clip.part for clip, _ in whole],
        "sha256": [json.dumps(note["sha256"]) for _, note in whole],
    }
    for m in modalities:
        columns[f"{m}.shard"] = pa.array([note["shard"] for _, note in whole], pa.int32())
        columns[f"{m}.offset"] = pa.array([note["arrays"][m]["offset"] for _, note in whole], pa.int64())
        columns[f"{m}.length"] = pa.array([note["arrays"][m]["shape"][0] for _, note in whole], pa.int64())
        columns[f"{m}.blank"] = [note["arrays"][m].get("blank") for _, note in whole]
        columns[f"{m}.sha256"] = [note["arrays"][m]["sha256"] for _, note in whole]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), buffer)
    write_atomic(store / "index.parquet", buffer.getvalue().to_pybytes())
    contents = [[clip.id, clip.label, *(note["arrays"][m]["sha256"] for m in modalities)] for clip, note in whole]
    digest = hashlib.sha256(json.dumps([dataset.key, contents]).encode()).hexdigest()[:16]
    manifest = {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "digest": digest,
        "root": str(dataset.root.resolve()) if dataset.root else "",
        "decoding": dict(dataset.decoding()),
        "class_names": list(names),
        "modalities": modalities,
        "num_clips": len(notes),
        "num_shards": 1 + max((note["shard"] for note in notes), default=-1),
        "allow_missing": allow_missing,
        "failed": failed,
        "libraries": {name: _version(name) for name in DECODERS},
    }
    write_atomic(store / "manifest.json", json.dumps(manifest, indent=1).encode())
    num_bytes = sum(path.stat().st_size for path in store.rglob("*.bin"))
    return Prepared(store, len(notes), num_decoded, failed, num_bytes)


def _refuse_nothing(dataset: ClipDataset, failed: Sequence[Note]) -> None:
    """Raise `UserError` where a part of the data has no clip left that can be decoded, which no option makes usable."""
    listed, lost = Counter(clip.part for clip in dataset.clips), Counter(entry["part"] for entry in failed)
    reasons = Counter(str(entry["reason"]).replace(entry["id"], "*") for entry in failed)
    (common, count), *_ = reasons.most_common(1) or [("", 0)]
    why = f"for {count:,} of {len(failed):,} in all: {common}"
    expected = "clips that can be decoded"
    raise_some([
        Problem(f"data set {dataset.name}, {part}", expected, f"none of {num:,}, {why}", dataset.advice)
        for part, num in listed.items()
        if lost[part] == num
    ])  # fmt: skip


def _layout(dataset: ClipDataset, modality: str, whole: Sequence[tuple[Clip, Note]]) -> Note:
    """Return shape and dtype that the arrays of a modality share.

    Raises:
        UserError: when a clip's differ from the first one's.
    """
    first, expected = whole[0][0], None
    for clip, note in whole:
        place = note["arrays"][modality]
        layout = {"shape": list(place["shape"][1:]), "dtype": place["dtype"]}
        expected = expected or layout
        if layout != expected:
            where = f"data set {dataset.name}, clip {clip.id}"
            raise UserError(Problem(where, f"{modality} as {expected}, as in {first.id}", str(layout)))
    assert expected is not None
    return expected


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
