"""Coverage: which runs of a plan are on disk, and which are missing, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from benchmark.plan.spec import RunSpec
from benchmark.records import RunFolder, RunView, State, view

SHOWN = 20
"""Lines of missing runs that are shown."""


def planned(runs: Iterable[RunSpec], out: Path) -> Iterator[RunView]:
    """Yield planned runs as found on disk; one that is not there, or whose spec is damaged, has the plan's spec."""
    for run in runs:
        folder = RunFolder(run.folder(out))
        spec = run.model_dump(mode="json")
        if not (folder.path / "spec.yaml").exists():
            yield RunView(folder, spec)
        else:
            found = view(folder)
            yield found if found.spec else replace(found, spec=spec)


def missing(runs: Sequence[RunView]) -> list[str]:
    """Return a line for each data set, method and reason: `dialpad aug: seeds 0, 1 (failed: out of memory)`."""
    gone = sorted((run for run in runs if not run.record), key=_kind)
    lines = []
    for (dataset, method, why), same in groupby(gone, _kind):
        seeds = sorted(run.seed for run in same)
        lines.append(f"{dataset} {method}: seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} ({why})")
    return (
        lines if len(lines) <= SHOWN else [*lines[: SHOWN - 1], f"and {len(lines) - SHOWN + 1} more lines like these"]
    )


def _kind(run: RunView) -> tuple[str, str, str]:
    cause = run.status.cause if run.status.state is State.FAILED else ""
    return run.dataset, run.method, run.problem or ": ".join(filter(None, [run.status.state, cause]))
