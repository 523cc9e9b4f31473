"""The contract of a report, and how runs are grouped so that no table mixes protocols."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from benchmark.records import RunView, State, remove_litter, write_atomic
from benchmark.rules import BEST_VALID, RULES, Rule
from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED, Table
from benchmark.versions import NUMERICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = TypeVar("Result")

MAX_STEM = 120
"""Bytes of a part of a file name; file systems take 255 for the whole."""


@dataclass(frozen=True)
class Artifact:
    """A file that a report writes."""

    name: str
    content: bytes
    caption: str = ""
    """What a LaTeX fragment or a figure's PDF shows; empty for other formats of the same."""
    notes: Sequence[str] = ()
    extent: tuple[int, int] = (0, 0)
    """Characters across and lines down of a LaTeX fragment."""


class Report(ABC):
    """A report plugin: records in, files out. Must not train, and must not know W&B."""

    about: ClassVar[str]

    @abstractmethod
    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        """Return the files, from records alone."""

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        """Return the tables to show in a terminal."""
        return ()


@dataclass(frozen=True)
class Comparison:
    """Runs that may be in one table: the same data, split and recipe."""

    dataset: str
    """Label of the data set with its settings."""
    protocol: str
    title: str
    """What distinguishes this comparison from the others of a report."""
    selection: str
    """The rule of the main table."""
    runs: Sequence[RunView]
    stale: int
    """Runs left out because newer code has run the same thing."""
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """{method: why it cannot run on this data set}, where an experiment's plan says so; records know only of runs."""
    results: dict[Callable[[Comparison], Any], Any] = field(default_factory=dict, repr=False, compare=False)
    """What `once` has worked out."""

    def once(self, compute: Callable[[Comparison], Result]) -> Result:
        """Return `compute(self)`, worked out when a report first asks for it and then shared by all of them."""
        if compute not in self.results:
            self.results[compute] = compute(self)
        result: Result = self.results[compute]
        return result

    @property
    def methods(self) -> list[str]:
        """Method labels, in order of first appearance by name, baselines or not."""
        return list(self.once(_by_method))

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(m for run in self.runs if run.record for m in run.record.modalities))

    @property
    def kept(self) -> Rule:
        """The rule whose models are kept, probed and evaluated: the last epoch's where nothing was held out."""
        return next((run.record.kept for run in self.runs if run.record), BEST_VALID)

    def is_defined(self, rule: str) -> bool:
        """Return whether a selection rule can choose an epoch of these runs."""
        return all(run.record.is_defined(rule) for run in self.runs if run.record)

    @property
    def num_seeds(self) -> str:
        """Finished runs of a method, or the range over methods: `3`, `0 to 3`."""
        counts = sorted({sum(run.record is not None for run in self.of(method)) for method in self.methods})
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"

    def symbol(self, method: str) -> str:
        """Return what is printed for a number that a method does not have: unsupported, failed or missing."""
        if method in self.unsupported:
            return UNSUPPORTED
        return FAILED if any(run.status.state is State.FAILED for run in self.of(method)) else MISSING

    def left_out(self) -> list[str]:
        """Return in words which runs a table cannot count, and why."""
        failed, open_ = dict[tuple[str, str], list[int]](), dict[tuple[str, str], list[int]]()
        for run in self.runs:
            if run.status.state is State.FAILED:
                failed.setdefault((run.method, run.status.cause.rstrip(".")), []).append(run.seed)
            elif not run.record:
                open_.setdefault((run.method, run.problem or run.status.state), []).append(run.seed)
        lines = [f"✗ {method}, {_seeds(seeds)}: {cause}." for (method, cause), seeds in failed.items()]
        lines += [f"Not counted: {method}, {_seeds(seeds)} ({why})." for (method, why), seeds in open_.items()]
        if lines:
            done = sum(run.record is not None for run in self.runs)
            lines.insert(0, f"Partial: {done} of {len(self.runs)} runs are finished.")
        lines += [f"n/a {method}: {reason.rstrip('.')}." for method, reason in sorted(self.unsupported.items())]
        if undefined := [rule.label for rule in RULES.values() if not self.is_defined(rule.name)]:
            lines.append(f"n/a {', '.join(undefined)}: all of train trains, so there are no samples to validate on.")
        if self.stale:
            lines.append(f"{self.stale} older runs of the same settings are left out.")
        if self.runs and (numerics := self.runs[0].spec["numerics"]) != NUMERICS:
            made = f"version {numerics} of the core's numbers" if numerics else "code from before numbers had versions"
            lines.append(f"Made by {made}; today's is version {NUMERICS}.")
        return lines

    def of(self, method: str) -> list[RunView]:
        """Return a method's runs, by seed."""
        return list(self.once(_by_method).get(method, ()))


def _by_method(comparison: Comparison) -> dict[str, list[RunView]]:
    """Return {method: its runs by seed}, methods in order of first appearance."""
    found: dict[str, list[RunView]] = {}
    for run in comparison.runs:
        found.setdefault(run.method, []).append(run)
    return {method: sorted(runs, key=lambda run: run.seed) for method, runs in found.items()}


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, sorted(seeds)))}"


def compare(
    runs: Iterable[RunView], unsupported: Iterable[tuple[str, str, str]] = ()
) -> tuple[list[Comparison], list[str]]:
    """Group runs into comparisons.

    Args:
        runs: in any order.
        unsupported: combinations that were asked for and make no sense, (method, data set, reason).

    Returns:
        The comparisons, and what could not be read, in words. The result does not depend on the order of `runs`.
    """
    groups: dict[tuple[str, str, str], list[RunView]] = {}
    problems = []
    for run in sorted(runs, key=lambda run: str(run.folder.path)):
        if run.problem:
            problems.append(f"skipped {run.folder.path}: {run.problem}")
        if run.spec:
            numbers = [run.spec["numerics"], run.spec["dataset"]["version"], run.spec["dataset"]["code"]]
            same = [run.spec["recipe"], run.spec["fingerprint"], run.spec["split"], *numbers]
            recipe = json.dumps(same, sort_keys=True)
            groups.setdefault((run.dataset, run.spec["protocol"], recipe), []).append(run)
    return list(_comparisons(groups, list(unsupported))), problems


def _comparisons(
    groups: dict[tuple[str, str, str], list[RunView]], unsupported: Sequence[tuple[str, str, str]]
) -> Iterator[Comparison]:
    files = Counter(slug(f"{dataset}, {protocol}") for dataset, protocol, _ in groups)
    for (dataset, protocol, recipe), runs in sorted(groups.items()):
        title = f"{dataset}, {protocol}"
        if files[slug(title)] > 1:  # else one would overwrite the other
            digest = _digest(dataset + recipe)[:4]
            title += f" ({runs[0].spec['recipe']['epochs']} epochs, #{digest})"
        reasons = {method: reason for method, data, reason in unsupported if data == dataset}
        newest: dict[tuple[str, int], RunView] = {}
        latest = _latest_versions(runs)
        for run in sorted(runs, key=_freshness):
            if run.spec["method"]["version"] >= latest[run.method]:
                newest[run.method, run.seed] = run
        kept = sorted(newest.values(), key=lambda run: (run.spec["method"]["name"], run.method, run.seed))
        selection = runs[0].selection
        yield Comparison(dataset, protocol, title, selection, kept, len(runs) - len(kept), reasons)


def _latest_versions(runs: Iterable[RunView]) -> dict[str, int]:
    """Return {method: the highest version of its numbers that a run has finished with, or has at all}."""
    found: dict[str, tuple[bool, int]] = {}
    for run in runs:
        rank = run.status.state is State.DONE, int(run.spec["method"]["version"])
        found[run.method] = max(rank, found.get(run.method, rank))
    return {method: version for method, (_, version) in found.items()}


def _freshness(run: RunView) -> tuple[bool, float, str]:
    return run.status.state is State.DONE, run.status.updated, str(run.folder.path)


def write(artifacts: Iterable[Artifact], folder: Path) -> list[Path]:
    """Write artifacts into a folder and return their paths."""
    artifacts = list(artifacts)
    remove_litter(folder, {artifact.name for artifact in artifacts})
    paths = []
    for artifact in artifacts:
        path = folder / artifact.name
        write_atomic(path, artifact.content)
        paths.append(path)
    return paths


def render(table: Table, stem: str) -> list[Artifact]:
    """Return a table as LaTeX, Markdown and CSV."""
    texts = {"tex": table.to_latex(), "md": table.to_markdown(), "csv": table.to_csv()}
    described = {"tex": (table.caption, table.notes, table.extent)}
    return [
        Artifact(f"{stem}.{suffix}", text.encode("utf-8", "backslashreplace"), *described.get(suffix, ()))
        for suffix, text in texts.items()
    ]


def render_figure(figure: Figure, stem: str, caption: str = "", notes: Sequence[str] = ()) -> list[Artifact]:
    """Return a matplotlib figure as PNG, SVG and PDF, the same bytes for the same figure.

    Args:
        figure: the figure; dollars in its texts are printed, not read as formulas.
        stem: name of the files.
        caption: what it shows; the figure's own title if none is given.
        notes: what a reader must know.
    """
    from benchmark.tables.picture import encode

    content, shortened = encode(figure, stem)
    described = {"pdf": (caption or figure.get_suptitle() or stem, (*notes, *shortened))}
    return [Artifact(f"{stem}.{suffix}", data, *described.get(suffix, ())) for suffix, data in content.items()]


def slug(text: str) -> str:
    """Return a text as a file name, of a length that every file system takes."""
    name = "".join(char if char.isalnum() or char in "-=." else "-" for char in text).strip("-")
    if len(name.encode()) <= MAX_STEM:
        return name
    return f"{name.encode()[: MAX_STEM - 9].decode(errors='ignore')}-{_digest(text)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
