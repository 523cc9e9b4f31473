"""Runs as found on disk: what reports and `bench status` read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmark.records.files import RecordError, RunFolder
from benchmark.records.status import State, Status


@dataclass(frozen=True)
class RunView:
    """A run as found on disk: what reports and `bench status` read."""

    folder: RunFolder
    spec: dict[str, Any] = field(default_factory=dict)
    status: Status = field(default_factory=Status)
    record: dict[str, Any] | None = None
    problem: str = ""
    """What could not be read, in words; empty if nothing is wrong."""

    @property
    def method(self) -> str:
        return str(self.spec["method"]["label"]) if self.spec else self.status.method

    @property
    def dataset(self) -> str:
        return str(self.spec["dataset"]["label"]) if self.spec else self.status.dataset

    @property
    def seed(self) -> int:
        return int(self.spec["seed"]) if self.spec else self.status.seed

    @property
    def title(self) -> str:
        """A readable name, or the folder's where nothing can be read."""
        return f"{self.dataset} {self.method} s{self.seed}" if self.dataset else self.folder.path.name


def view(folder: RunFolder) -> RunView:
    """Read one run; damage is reported, not raised."""
    spec: dict[str, Any] = {}
    status = Status()
    try:
        spec = folder.read_spec()
        status = as_seen(folder, folder.read_status())
        record = folder.read_record() if status.state is State.DONE else None
        return RunView(folder, spec, status, record)
    except RecordError as error:
        return RunView(folder, spec, status, None, str(error))


def glance(folder: RunFolder) -> RunView:
    """Read no more of one run than its status; other files are only measured. For thousands of runs at a time."""
    try:
        status = folder.read_status()
    except RecordError as error:
        return RunView(folder, problem=str(error))
    if not status.sizes:  # never started, or by a version that did not note sizes
        return view(folder)
    if folder.size_of(*status.sizes) != status.sizes:
        return view(folder)  # which finds out what is wrong
    return RunView(folder, status=as_seen(folder, status))


def as_seen(folder: RunFolder, status: Status) -> Status:
    """Return a status in which a run that says it is running, but is not, is interrupted."""
    if status.state is not State.RUNNING or folder.is_alive(status):
        return status
    return replace(status, state=State.INTERRUPTED, cause=status.cause or f"its process on {status.host} is gone")


def scan(out: Path, read: Callable[[RunFolder], RunView] = view) -> Iterator[RunView]:
    """Read every run under an output folder, in order of path."""
    for path in sorted(_run_paths(out)):
        yield read(RunFolder(Path(path)))


def view_all(out: Path) -> list[RunView]:
    """Read every run under an output folder, in order of path, in several processes where there are many."""
    from benchmark.processes import in_chunks

    return in_chunks(_views, [RunFolder(Path(path)) for path in sorted(_run_paths(out))])


def _views(folders: Sequence[RunFolder]) -> list[RunView]:
    return [view(folder) for folder in folders]


def _run_paths(out: Path) -> Iterator[str]:
    for parent in _folders(out, 2):
        for entry in _visible(parent):
            runs = [entry] if _is_run(entry) else _visible(entry.path)
            yield from (run.path for run in runs if _is_run(run) and Path(run.path, "spec.yaml").exists())


def _folders(out: Path, depth: int) -> list[Path]:
    """Return the folders `depth` levels below."""
    found = [out] if out.is_dir() else []
    for _ in range(depth):
        found = [Path(entry.path) for folder in found for entry in _visible(folder)]
    return found


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError:  # removed while we look
        return []


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith("s") and "-" in entry.name
