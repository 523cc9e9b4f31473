"""The histories of a comparison's runs as columns of numbers: read once for all reports, a hundredth of the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmark.metrics import FUSED, HEADLINE
from benchmark.processes import in_chunks
from benchmark.records import RunFolder
from benchmark.report import Comparison

Array = NDArray[np.float64]


@dataclass(frozen=True)
class History:
    """What a run logged, epoch by epoch."""

    epochs: Array
    """(E,), from 1."""
    paths: Sequence[str]
    """Where the columns stand in a line of history.jsonl, such as valid/fused/accuracy or train/loss/audio."""
    values: Array
    """(columns, E), NaN for holes."""

    def __len__(self) -> int:
        return len(self.epochs)

    def column(self, path: str) -> Array:
        """Return a column (E,), NaN throughout where nothing was logged under that path."""
        return self.values[self.paths.index(path)] if path in self.paths else np.full(len(self), np.nan)

    def score(self, split: str, head: str = FUSED, metric: str = HEADLINE.name) -> Array:
        """Return a score (E,) on a split, `valid` or `test`; NaN throughout where it was not measured."""
        return self.column(f"{split}/{head}/{metric}")

    def under(self, path: str) -> dict[str, Array]:
        """Return the columns under a path, by what follows it."""
        start = f"{path}/"
        columns = zip(self.paths, self.values, strict=True)
        return {key.removeprefix(start): values for key, values in columns if key.startswith(start)}


def histories(comparison: Comparison) -> dict[Path, History]:
    """Return {folder of a run: its history}, without runs that have none; ask by `comparison.once(histories)`."""
    folders = [run.folder for run in comparison.runs]
    found = zip(folders, in_chunks(read_chunk, folders), strict=True)
    return {folder.path: history for folder, history in found if len(history)}


def read_chunk(folders: Sequence[RunFolder]) -> list[History]:
    """Return the histories of several runs."""
    return [as_columns(folder.read_history()) for folder in folders]


def as_columns(lines: Sequence[Mapping[str, Any]]) -> History:
    """Turn the lines of a history into columns."""
    columns: dict[str, Any] = {}
    for place, line in enumerate(lines):
        _collect(line, columns, place, len(lines))
    named = dict(_named(columns, ""))
    epochs = np.array(named.pop("epoch", range(len(lines))), dtype=float) + 1
    return History(epochs, list(named), np.array(list(named.values()), dtype=float).reshape(len(named), len(lines)))


def _collect(line: Mapping[str, Any], columns: dict[str, Any], place: int, length: int) -> None:
    """Put the numbers of a line in their places: lists under their keys, and under `key/` what is nested."""
    for key, value in line.items():
        if isinstance(value, dict):
            _collect(value, columns.setdefault(f"{key}/", {}), place, length)
        elif isinstance(value, (float, int)):
            if key not in columns:
                columns[key] = [math.nan] * length
            columns[key][place] = value


def _named(columns: Mapping[str, Any], start: str) -> Iterator[tuple[str, list[float]]]:
    """Yield the lists with their paths."""
    for key, value in columns.items():
        if isinstance(value, dict):
            yield from _named(value, start + key)
        else:
            yield start + key, value
