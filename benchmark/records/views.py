"""Runs as found on disk: what reports and `bench status` read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmark.metrics import FUSED, HEADLINE
from benchmark.records.arrays import Embeddings, Predictions, read_embeddings, read_table
from benchmark.records.evaluations import Evaluation
from benchmark.records.files import RunFolder, dig
from benchmark.records.history import Epoch
from benchmark.records.record import Record, RecordError
from benchmark.records.status import State, Status

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


Measured = TypeVar("Measured", bound=Evaluation)


@dataclass(frozen=True)
class RunView:
    """A run as found on disk: what reports and `bench status` read."""

    folder: RunFolder
    spec: dict[str, Any] = field(default_factory=dict)
    status: Status = field(default_factory=Status)
    record: Record | None = None
    """What was measured; None unless it is done."""
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

    @property
    def selection(self) -> str:
        """The rule of the main table."""
        return str(self.spec["recipe"]["selection"])

    def score(self, rule: str, head: str = FUSED, metric: str = HEADLINE.name, split: str = "test") -> float | None:
        """Return a score of a finished run as recorded, a share as a fraction; None where there is none.

        Args:
            rule: name of a selection rule, of `benchmark.rules.RULES`.
            head: `fused` or a modality, by the method's own logits.
            metric: name of a metric, of `benchmark.metrics.METRICS`.
            split: `test` or `valid`.
        """
        return None if self.record is None else self.record.score(rule, head, metric, split)

    def probe(self, modality: str, rule: str | None = None) -> float | None:
        """Return the test accuracy of a linear classifier on a modality's frozen encoder; None where there is none.

        Args:
            modality: whose encoder.
            rule: name of a selection rule; by default that of the model that is kept (`Record.kept`).
        """
        return None if self.record is None else self.record.probe(rule or self.record.kept.name, modality)

    def predictions(self, rule: str) -> Predictions:
        """Return ids and labels (N,) and logits {head: (N, K)} of the test samples at the epoch that a rule chose.

        Raises:
            OSError, ValueError: when there are none by that rule, or they are damaged.
        """
        found = read_table(self.folder.predictions).of(rule)
        if not found.ids:
            raise ValueError(f"expected logits of rule {rule}, got none")
        return found

    def logits(self, rule: str) -> Mapping[str, NDArray[np.float32]]:
        """Return test logits, {"fused" or modality: (N, K)}, in the order of `predictions(rule).ids`.

        Raises:
            OSError, ValueError: when there are none by that rule, or they are damaged.
        """
        return self.predictions(rule).logits

    def embeddings(self) -> Embeddings:
        """Return ids and labels (N,) and features {modality: (N, D)} of the test samples, of the model that is kept.

        Raises:
            OSError, ValueError: when there are none, or they are damaged.
        """
        return read_embeddings(self.folder.embeddings)

    def evaluation(self, kind: type[Measured]) -> Measured | None:
        """Return what `bench evaluate` measured; None where it is absent, damaged, or of another run or version."""
        return None if self.record is None else kind.read(self.folder, self.record.id)

    def changes(self) -> list[str]:
        """Return what of the recipe is not the protocol's, `epochs=4 (25)`; nothing where that was not recorded."""
        recipe, own = self.spec.get("recipe"), self.spec.get("replaced") or {}
        return [f"{key}={dig(recipe, *key.split('.'))} ({value})" for key, value in sorted(own.items())]

    def made_with(self) -> dict[str, str]:
        """Return what must agree for bits to agree, as far as it is on record: torch, device and CPU threads."""
        environment = self.folder.read_environment()
        found = {"torch": self.spec.get("torch"), "threads": environment.get("threads")}
        found["device"] = environment.get("gpu") or environment.get("device")
        return {what: str(value) for what, value in found.items() if value is not None}

    def history(self) -> list[Epoch]:
        """Return the epochs finished so far."""
        return [Epoch(line) for line in self.folder.read_history()]


def view(folder: RunFolder) -> RunView:
    """Read one run; damage is reported, not raised."""
    spec: dict[str, Any] = {}
    status = Status()
    if problem := _shut(folder.path):
        return RunView(folder, problem=problem)
    try:
        spec = folder.read_spec()
        status = as_seen(folder, folder.read_status())
        record = folder.read_record(spec) if status.state is State.DONE else None
        return RunView(folder, spec, status, record)
    except RecordError as error:
        return RunView(folder, spec, status, None, str(error))


def glance(folder: RunFolder) -> RunView:
    """Read no more of one run than its status; other files are only measured. For thousands of runs at a time."""
    if problem := _shut(folder.path):
        return RunView(folder, problem=problem)
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
    """Yield the folders of runs, and those in which there may be some but that cannot be looked into."""
    for parent in _folders(out, 2):
        if _shut(parent):
            yield str(parent)
            continue
        for entry in _visible(parent):
            if _shut(entry.path):
                yield entry.path
                continue
            runs = [entry] if _is_run(entry) else _visible(entry.path)
            yield from (run.path for run in runs if _is_run(run) and _has_spec(run.path))


def _folders(out: Path, depth: int) -> list[Path]:
    """Return the folders `depth` levels below."""
    found = [out] if out.is_dir() else []
    for _ in range(depth):
        shut = [folder for folder in found if folder != out and _shut(folder)]
        below = [Path(entry.path) for folder in found if folder not in shut for entry in _visible(folder)]
        found = shut + below
    return found


def _shut(path: str | Path) -> str:
    """Return why a folder is not looked into; empty where it is, or is not there."""
    if Path(path).is_symlink() and Path(os.path.realpath(Path(path).parent)).is_relative_to(os.path.realpath(path)):
        return "a link to a folder above it: not read"
    if os.path.lexists(path) and not os.access(path, os.R_OK | os.X_OK):
        return "cannot be read (permission denied)"
    return ""


def _has_spec(path: str) -> bool:
    return bool(_shut(path)) or os.path.lexists(Path(path, "spec.yaml"))


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and _is_folder(entry)]
    except OSError:  # removed while we look, or `_shut`
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # links in a circle
        return False


def _is_run(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith("s") and "-" in entry.name
