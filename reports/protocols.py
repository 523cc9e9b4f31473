"""Protocols: the same methods under several protocols, and how much of a gain is the protocol's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmark.metrics import HEADLINE
from benchmark.report import Artifact, Comparison, Report, render, slug
from benchmark.rules import dagger
from benchmark.tables.table import Column, Table

from ._runs import cell, methods_of

REFERENCE = "unified"
"""The protocol that others are compared with."""
BASELINE = "concat"
"""The method that gains are counted from, as in the literature's tables."""

Scores = Mapping[str, Mapping[int, float]]
"""{method: {seed: fused test accuracy in per cent by the protocol's own rule}}"""


class ProtocolsReport(Report):
    about = "the same methods under several protocols: accuracy, gain over the baseline, and what the protocol adds"

    def build(self, comparisons: Sequence[Comparison]) -> Iterable[Artifact]:
        for name, group in by_dataset(comparisons).items():
            yield from render(protocols(name, group), f"protocols-{slug(name)}")

    def tables(self, comparisons: Sequence[Comparison]) -> Iterable[Table]:
        return [protocols(name, group) for name, group in by_dataset(comparisons).items()]


def by_dataset(comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """Group by the name of the data set, the reference first, without data sets that ran under one protocol only.

    By name, since a protocol may change the data set's settings, such as the seconds of its audio.
    """
    groups: dict[str, list[Comparison]] = {}
    for comparison in sorted(comparisons, key=lambda one: (one.protocol != REFERENCE, one.protocol, one.title)):
        if not comparison.superseded:
            groups.setdefault(str(comparison.runs[0].spec["dataset"]["name"]), []).append(comparison)
    return {name: groups[name] for name in sorted(groups) if len({one.protocol for one in groups[name]}) > 1}


def reference_of(comparison: Comparison, group: Sequence[Comparison]) -> Comparison | None:
    """Return what a comparison is compared with: the reference on the same data, or the only one; None if unclear."""
    known = [one for one in group if one.protocol == REFERENCE]
    same = [one for one in known if one.dataset == comparison.dataset]
    fitting = same or known
    return fitting[0] if len(fitting) == 1 and comparison.protocol != REFERENCE else None


def read(comparison: Comparison) -> Scores:
    """Return the accuracy of every finished run by the comparison's own selection rule."""
    return {
        method: {
            run.seed: HEADLINE.scale * found
            for run in comparison.of(method)
            if (found := run.score(comparison.selection)) is not None
        }
        for method in comparison.methods
    }


def gains(scores: Scores, method: str) -> dict[int, float]:
    """Return a method's accuracy less the baseline's, for the seeds that both have."""
    return less(scores.get(method, {}), scores.get(BASELINE, {}))


def less(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Return the differences for the seeds that both have."""
    return {seed: one[seed] - other[seed] for seed in sorted(set(one) & set(other))}


def protocols(name: str, group: Sequence[Comparison]) -> Table:
    """Return the table of one data set."""
    scores = {comparison.title: read(comparison) for comparison in group}
    names = short_titles(group)
    pairs = [(one, other) for one in group if (other := reference_of(one, group))]
    columns = []
    for comparison in group:
        title = names[comparison.title] + dagger(comparison.selection)
        columns += [Column("fused", title), Column("gain", title, rank=False)]
    for one, other in pairs:
        title = f"{names[one.title]} − {names[other.title]}"
        columns += [Column(what, title, rank=False) for what in ("fused", "gain")]
    rows = []
    for method in sorted({method for comparison in group for method in methods_of(comparison)}):
        cells = []
        for comparison in group:
            found = scores[comparison.title]
            cells.append(cell(comparison, method, found.get(method, {}).values()))
            cells.append(cell(comparison, method, gains(found, method).values() if method != BASELINE else ()))
        for one, other in pairs:
            here, there = scores[one.title], scores[other.title]
            cells.append(cell(one, method, less(here.get(method, {}), there.get(method, {})).values()))
            difference = less(gains(here, method), gains(there, method))
            cells.append(cell(one, method, difference.values() if method != BASELINE else ()))
        rows.append((method, cells))
    return Table(
        f"{name}: fused test accuracy (%) by protocol, mean ± std over seeds", columns, rows, notes(group)
    ).ranked()


def short_titles(group: Sequence[Comparison]) -> dict[str, str]:
    """Return {title: what tells it from the others}: without the data set where all are on the same."""
    same = len({comparison.dataset for comparison in group}) == 1
    return {one.title: one.title.removeprefix(f"{one.dataset}, ") if same else one.title for one in group}


def notes(group: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: how epochs were chosen, what is subtracted from what."""
    lines = []
    for comparison in group:
        lines.append(
            f"{comparison.title}: {comparison.dataset}, n = {comparison.num_seeds} seeds, "
            f"selection {comparison.selection}."
        )
    lines.append(f"gain: less {BASELINE} under the same protocol and seed, in points.")
    lines.append(f"Differences to {REFERENCE}: of the same seeds; a gain's is what the protocol adds to it.")
    if any(reference_of(one, group) is None for one in group if one.protocol != REFERENCE):
        lines.append(f"No difference where it is unclear which runs under {REFERENCE} to compare with.")
    for comparison in group:
        lines += comparison.about_protocol()
        lines += [f"{comparison.title}: {line}" for line in comparison.left_out()]
    return [*lines, "— not run or not defined, ✗ failed, n/a unsupported; † epoch chosen on the test set."]
