"""The contract of a report, and how runs are grouped so that no table mixes protocols."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from benchmark.codes import Code, behind, split
from benchmark.protocol import load_protocol, protocol_names
from benchmark.records import RunView, State, dig, remove_litter, write_atomic
from benchmark.reproduce import rerun
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
    """What distinguishes this comparison from the others of a report, with the epochs and what else was changed."""
    stem: str
    """The same as a part of file names; it does not depend on what else is in a report."""
    selection: str
    """The rule of the main table."""
    runs: Sequence[RunView]
    stale: int
    """Runs left out because newer code has run the same thing."""
    older: Sequence[str] = ()
    """Which seeds and rows are of older code, and the commands that train them with today's, in words."""
    marked: frozenset[str] = frozenset()
    """Methods whose rows are of older code than other settings of the same method."""
    superseded: bool = False
    """Whether a newer version of the core or of the data set has a comparison of the same settings."""
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
        lines += [recipe_of(self.runs), *self.older, *self.once(mixed)] if self.runs else []
        if self.stale:
            runs = "1 older run" if self.stale == 1 else f"{self.stale} older runs"
            lines.append(f"{runs} of the same settings and seeds left out.")
        if self.runs and (numerics := self.runs[0].spec["numerics"]) != NUMERICS:
            made = f"version {numerics} of the core's numbers" if numerics else "code from before numbers had versions"
            lines.append(f"Made by {made}; today's is version {NUMERICS}.")
        return lines

    def about_protocol(self) -> list[str]:
        """Say what is not as in the source that the protocol follows, on this data set."""
        if self.protocol not in protocol_names():
            return []
        protocol, name = load_protocol(self.protocol), self.dataset.partition("[")[0]
        known = {key.partition(".")[0] for key in protocol.differs}
        told = {name, "any"} if name in known else {"any", "unpublished"}
        lines = [text for key, text in protocol.differs.items() if key.partition(".")[0] in told]
        return [f"{protocol.name} follows {protocol.source}, but: {'; '.join(lines)}."] if lines else []

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
    found = sorted(groups.items())
    titles = {key: title_of(runs) for key, runs in found}
    latest: dict[str, tuple[int, ...]] = {}
    for _, runs in found:
        if any(run.record for run in runs):
            latest[_alike(runs)] = max(Code.of(runs[0]).versions[:2], latest.get(_alike(runs), (-1, -1)))
    count = Counter(slug(title) for title in titles.values())
    for (dataset, protocol, recipe), runs in found:
        title = titles[dataset, protocol, recipe]
        if count[slug(title)] > 1:  # else one would overwrite the other
            title += f", #{_digest(dataset + recipe)[:4]}"
        reasons = {method: reason for method, data, reason in unsupported if data == dataset}
        current, older = split(runs)
        kept, marked, words = _rows(current, older)
        superseded = Code.of(runs[0]).versions[:2] < latest.get(_alike(runs), (-1, -1))
        stale = len(runs) - len(kept) - len(_unrepeated(current, older))
        yield Comparison(
            dataset, protocol, title, slug(title), runs[0].selection, kept, stale, words, marked, superseded, reasons
        )


def title_of(runs: Sequence[RunView]) -> str:
    """Return what a comparison is of: data set, protocol, epochs, what else was changed of the protocol, old code."""
    first = runs[0]
    epochs = first.spec["recipe"].get("epochs")
    changes = next((found for run in runs if (found := run.changes())), [])
    parts = [first.dataset, str(first.spec["protocol"]), f"{epochs} epoch{'s' * (epochs != 1)}"]
    parts += [change.partition(" (")[0] for change in changes if not change.startswith("epochs=")]
    if (numerics := first.spec["numerics"]) != NUMERICS:
        parts.append(f"core version {numerics}")
    return ", ".join(parts)


def recipe_of(runs: Sequence[RunView]) -> str:
    """Return in words how the runs of a comparison were trained, and what of that is not the protocol's own."""
    recipe = runs[0].spec["recipe"]
    epochs, batch, optimizer = recipe.get("epochs"), recipe.get("batch_size"), recipe.get("optimizer")
    parts = [f"{epochs} epoch{'s' * (epochs != 1)}", *([f"batches of {batch}"] if batch else [])]
    if isinstance(optimizer, Mapping):
        values = ", ".join(f"{key} {value}" for key, value in optimizer.items() if key != "kind")
        parts.append(f"{optimizer.get('kind')} ({values})")
    if schedule := dig(recipe, "schedule", "kind"):
        parts.append(f"{schedule} schedule")
    parts += [str(recipe["precision"])] if "precision" in recipe else []
    changes = next((found for run in runs if (found := run.changes())), [])
    changed = f" Not as in {runs[0].spec['protocol']}, whose own in brackets: {', '.join(changes)}." if changes else ""
    return f"{runs[0].dataset}: {', '.join(parts)}.{changed}"


def _alike(runs: Sequence[RunView]) -> str:
    """Return what comparisons have in common that differ in the code of the core and of the data set alone."""
    spec = runs[0].spec
    return json.dumps([runs[0].dataset, spec["protocol"], spec["recipe"], spec["fingerprint"]], sort_keys=True)


def _rows(current: Sequence[RunView], older: Sequence[RunView]) -> tuple[list[RunView], frozenset[str], list[str]]:
    """Return the runs of a table, one for each method and seed; which methods are of older code; and that in words."""
    newest: dict[tuple[str, int], RunView] = {}
    for run in sorted(current, key=_freshness):
        newest[run.method, run.seed] = run
    kept = sorted(newest.values(), key=lambda run: (run.spec["method"]["name"], run.method, run.seed))
    words, missed = [], _unrepeated(current, older)
    latest = {run.method: Code.of(run) for run in kept if run.status.state is State.DONE}
    for method in dict.fromkeys(run.method for run in missed):
        alike = [run for run in missed if run.method == method]
        what = sorted({Code.of(run).differs(latest[method]) for run in alike})
        row = latest[method].differs(Code.of(alike[0]))
        seeds = _seeds(sorted({run.seed for run in alike}))
        words.append(f"Left out, of older code: {method}, {seeds} ({', '.join(what)}; the row is of {row}).")
    marked = behind(kept)
    for method, difference in marked.items():
        words.append(f"Of older code: {method} ({difference}), which other rows of the same method are not.")
    again = [*missed, *(run for run in kept if run.method in marked)]
    words += [f"To train what is of older code again: {command}" for command in rerun(again)]
    shown = [_marked(run, marked.get(run.method, "")) for run in kept]
    return shown, frozenset(run.method for run in shown) - {run.method for run in kept}, words


def _unrepeated(current: Sequence[RunView], older: Sequence[RunView]) -> list[RunView]:
    """Return the finished runs of older code whose seed no run of newer code has finished with, the newest of each."""
    done = {(run.method, run.seed) for run in current if run.record}
    found = {(run.method, run.seed): run for run in sorted(older, key=_freshness) if run.record}
    return [run for key, run in sorted(found.items()) if key not in done]


def _marked(run: RunView, what: str) -> RunView:
    """Return a run of a row that is of older code, named so in every table and figure."""
    if not what:
        return run
    method = {**run.spec["method"], "label": f"{run.method} (older: {what})"}
    return replace(run, spec={**run.spec, "method": method})


def mixed(comparison: Comparison) -> list[str]:
    """Say in which rows torch, device or CPU threads differ between seeds; ask by `comparison.once(mixed)`."""
    lines = []
    for method in comparison.methods:
        found: dict[str, dict[str, list[int]]] = {}
        for run in comparison.of(method):
            for what, value in run.made_with().items() if run.record else ():
                found.setdefault(what, {}).setdefault(value, []).append(run.seed)
        for what, values in found.items():
            if len(values) > 1:
                words = ", ".join(f"{value} ({_seeds(seeds)})" for value, seeds in sorted(values.items()))
                lines.append(f"Mixed in one row: {method}, {what} {words}.")
    return lines


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
    described = {"pdf": (caption or " ".join(figure.get_suptitle().split()) or stem, (*notes, *shortened))}
    return [Artifact(f"{stem}.{suffix}", data, *described.get(suffix, ())) for suffix, data in content.items()]


def slug(text: str) -> str:
    """Return a text as a file name, of a length that every file system takes."""
    name = "".join(char if char.isalnum() or char in "-=." else "-" for char in text).strip("-")
    if len(name.encode()) <= MAX_STEM:
        return name
    return f"{name.encode()[: MAX_STEM - 9].decode(errors='ignore')}-{_digest(text)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
