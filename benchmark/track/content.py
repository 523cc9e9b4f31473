"""What tracking tools are told about a run, from its files alone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchmark.metrics import FUSED, HEADLINE, METRICS, PROBE
from benchmark.records import Record, RunView, State
from benchmark.track.tracker import Ending, Grid, Page, Scalar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CELLS = 10_000
"""Cells of a confusion matrix that tools show at most; the most frequent ones."""
MAX_CLASSES = 60
"""Classes up to which a confusion matrix is also drawn."""
ENVIRONMENT = ("modalbench", "git", "host", "platform", "python", "device", "gpu", "threads", "packages")
"""What of env.json is shown. Not the command line, which is private to the user."""


def run_id(run: RunView) -> str:
    """Return the id of a run, by which it is known wherever it is shown."""
    return run.folder.path.name.rpartition("-")[2]


def describe(run: RunView, group: str, folder: str) -> Page:
    """Return what is known of a run before its first epoch.

    Args:
        run: with a spec.
        group: the sweep; if empty, the comparison that the run belongs to.
        folder: of the run, below the output folder.
    """
    spec = run.spec
    tags = dict.fromkeys([spec["method"]["name"], spec["dataset"]["name"], spec["protocol"]])
    return Page(run_id(run), run.title, group or f"{run.dataset}, {spec['protocol']}", list(tags), _config(run), folder)


def _config(run: RunView) -> dict[str, Any]:
    try:
        found = json.loads((run.folder.path / "env.json").read_bytes())
    except (OSError, ValueError):
        found = {}
    environment = {key: found[key] for key in ENVIRONMENT if key in found} if isinstance(found, dict) else {}
    return {**run.spec, "environment": environment}


def scalars_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line of history.jsonl under names such as `valid/fused/accuracy`."""
    return {name: value for name, value in _flat(line) if not isinstance(value, str)}


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Scalar]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from _flat(inner, f"{name}/{position}")
    elif isinstance(value, int | float | str):
        yield name, value


def conclude(run: RunView) -> Ending:
    """Return what is known of a run that no process works on."""
    is_done = run.status.state is State.DONE and run.record is not None
    cause = run.problem or run.status.cause
    summary: dict[str, Scalar] = {"state": str(run.status.state), "attempts": run.status.attempts, "cause": cause}
    if run.record is None:
        return Ending(str(run.status.state), False, summary)
    summary |= dict(_flat(run.record.summary()))
    confusions = _confusions(run)
    tables = {"scores": _scores(run.record)} | {f"confusion/{head}": _cells(run, c) for head, c in confusions.items()}
    summary |= {
        f"confusion/{head}/cells left out": int((counts > 0).sum()) - MAX_CELLS
        for head, counts in confusions.items()
        if (counts > 0).sum() > MAX_CELLS
    }
    drawn = confusions and len(run.record.class_names) <= MAX_CLASSES
    figures = {"confusion": _png(_draw(run, confusions))} if drawn else {}
    return Ending(str(run.status.state), is_done, summary, tables, figures)


def _scores(record: Record) -> Grid:
    """Return a row for each selection rule, split and head; probes under their own name."""
    rows: list[list[Scalar | None]] = []
    for rule, chosen in record.rules.items():
        for split, heads in (("valid", chosen.valid), ("test", chosen.test)):
            for head, scores in heads.items():
                rows.append([rule, chosen.epoch, split, head, *(scores.get(name) for name in METRICS)])
        for head, value in (chosen.probe or {}).items():
            found = [value if metric is HEADLINE else None for metric in METRICS.values()]
            rows.append([rule, chosen.epoch, "test", f"{head} ({PROBE})", *found])
    return Grid(["rule", "epoch", "split", "head", *METRICS], rows)


def _confusions(run: RunView) -> dict[str, Any]:
    """Return test counts by the rule of the main table, {head: (label, predicted)}; none if they cannot be read."""
    import numpy as np

    assert run.record is not None
    try:
        found = run.predictions(run.selection)
    except (OSError, ValueError):  # what is wrong with the files of a run is for `bench status` to say
        return {}
    size, labels, confusions = len(run.record.class_names), found.labels, {}
    for head in [head for head in (FUSED, *run.record.modalities) if head in found.logits]:
        logits = found.logits[head]
        counts = np.zeros((size, size), dtype=int)
        np.add.at(counts, (labels, logits.argmax(1)), 1)
        confusions[head] = counts
    return confusions


def _cells(run: RunView, counts: Any) -> Grid:
    assert run.record is not None
    names = run.record.class_names
    cells = [(names[i], names[j], int(counts[i, j])) for i, j in zip(*counts.nonzero(), strict=True)]
    return Grid(["label", "predicted", "samples"], sorted(cells, key=lambda cell: -cell[2])[:MAX_CELLS])


def _draw(run: RunView, confusions: Mapping[str, Any]) -> Figure:
    """Draw one confusion matrix for each head, rows adding up to one."""
    from matplotlib.figure import Figure

    assert run.record is not None
    names = run.record.class_names
    figure = Figure(figsize=(4.2 * len(confusions), 4.4), layout="constrained")
    panels = figure.subplots(1, len(confusions), squeeze=False)[0]
    for panel, (head, counts) in zip(panels, confusions.items(), strict=True):
        panel.imshow(counts / counts.sum(1, keepdims=True).clip(1), vmin=0, vmax=1, cmap="Blues")
        panel.set(title=head, xlabel="predicted", ylabel="label")
        if len(names) <= 20:
            panel.set_xticks(range(len(names)), names, rotation=90)
            panel.set_yticks(range(len(names)), names)
    figure.suptitle(f"{run.title}, test, {run.selection}")
    return figure


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
