"""A run in one line: what the sweep page shows of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark.metrics import FUSED, HEADLINE
from benchmark.records import RunView, State, dig
from benchmark.rules import BEST_VALID, RULES, needs_validation
from benchmark.site.reading import number
from benchmark.tables.table import FAILED, MISSING, UNSUPPORTED

DAMAGED = "damaged"
"""Shown as the state of a run whose files cannot be read."""

GLYPHS = {
    State.RUNNING: "▶", State.FAILED: "✗", DAMAGED: "⚠", State.INTERRUPTED: "‖", State.CANCELLED: "⊘",
    State.QUEUED: "⋯", State.PLANNED: "○", State.DONE: "✓",
}  # fmt: skip
"""States in order of urgency, each with a sign, so that colour is not needed to tell them apart."""

SPARK_POINTS = 40
"""Most points of a small curve."""


@dataclass(frozen=True)
class Row:
    """What the sweep page shows of a run; shares are between 0 and 1."""

    page: str
    """File name of the run's page: letters, digits and dashes."""
    dataset: str
    method: str
    seed: str
    protocol: str
    state: str
    cause: str
    epoch: int
    epochs: int
    eta: float | None
    """Seconds left of a running run."""
    scores: tuple[float | None, ...]
    """Fused test accuracy by each selection rule."""
    blanks: tuple[str, ...]
    """What is shown in place of each of them that there is none of."""
    own: tuple[tuple[str, float], ...]
    """(modality, test accuracy of its own logits), by the rule of the main table."""
    seconds: float | None
    curve: tuple[float, ...]
    """Fused validation accuracy of every epoch."""
    chosen: int | None
    """Position in `curve` of the epoch that validation chose."""

    @property
    def key(self) -> str:
        """A name that is safe as an identifier."""
        return self.page.removesuffix(".html")

    @property
    def title(self) -> str:
        return f"{self.dataset} {self.method} s{self.seed}"

    @property
    def lacks_validation(self) -> bool:
        """Whether the run holds nothing out to validate on."""
        return UNSUPPORTED in self.blanks

    @property
    def blank(self) -> str:
        """What is shown in place of a score."""
        return FAILED if self.state == State.FAILED else MISSING

    @property
    def own_of(self) -> dict[str, float]:
        return dict(self.own)


def summarise(run: RunView, root: Path, history: Sequence[Mapping[str, Any]]) -> Row:
    """Return the line of a run; whatever its files hold, this does not raise.

    Args:
        run: what was found.
        root: the runs' folder.
        history: the epochs finished.
    """
    parts = _parts(run, root)
    state = _state(run)
    selection = str(dig(run.spec, "recipe", "selection") or BEST_VALID.name)
    curve = [number(dig(line, "valid", FUSED, HEADLINE.name)) for line in history]
    chosen = _epoch_of(run)
    named = bool(run.dataset)
    return Row(
        page=page_of(run, root),
        dataset=run.dataset or (parts[0] if len(parts) > 2 else MISSING),
        method=run.method or (parts[1] if len(parts) > 2 else parts[-1]),
        seed=str(run.seed) if named else _seed(parts[-1]),
        protocol=_protocol(run),
        state=state,
        cause=run.problem if state == DAMAGED else str(run.status.cause),
        epoch=int(number(run.status.epoch) or 0),
        epochs=int(number(run.status.epochs) or number(dig(run.spec, "recipe", "epochs")) or 0),
        eta=_eta(run) if state == State.RUNNING else None,
        scores=tuple(number(run.score(rule)) for rule in RULES),
        blanks=tuple(blank(rule, state, history) for rule in RULES),
        own=_own(run, selection),
        seconds=number(run.record.seconds.total) if run.record else None,
        curve=tuple(value for value in curve if value is not None),
        chosen=int(chosen) if chosen is not None and 0 <= chosen < len(curve) and None not in curve else None,
    )


def blank(rule: str, state: str, history: Sequence[Mapping[str, Any]]) -> str:
    """Return what is shown in place of a score: n/a by a rule that looks at validation where a run has none."""
    if state == State.FAILED:
        return FAILED
    return UNSUPPORTED if needs_validation(rule) and lacks_validation(history) else MISSING


def lacks_validation(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether epochs are finished, none of which was measured on validation."""
    return bool(history) and all(dig(line, "valid") is None for line in history)


def _protocol(run: RunView) -> str:
    """Return the protocol with the epochs and what else is not its own."""
    epochs = number(dig(run.spec, "recipe", "epochs"))
    try:
        changes = [change for change in run.changes() if not change.startswith("epochs=")]
    except (AttributeError, TypeError, ValueError):  # a damaged spec holds anything
        changes = []
    length = [f"{epochs:g} epoch{'s' * (epochs != 1)}"] if epochs is not None else []
    return ", ".join([str(run.spec.get("protocol", MISSING)), *length, *changes])


def page_of(run: RunView, root: Path) -> str:
    """Return the file name of a run's page: readable, unique, and the same wherever the runs' folder is."""
    parts = _parts(run, root)
    readable = "-".join(re.sub(r"[^A-Za-z0-9]+", "-", part)[:40].strip("-") for part in [*parts[:2], parts[-1]])
    digest = hashlib.sha256("/".join(parts).encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{readable}-{digest}.html"


def _parts(run: RunView, root: Path) -> tuple[str, ...]:
    path = run.folder.path
    return path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-4:]


def _state(run: RunView) -> str:
    if run.problem:
        return DAMAGED if run.folder.path.exists() else State.PLANNED
    return str(run.status.state)


def _seed(name: str) -> str:
    found = re.match(r"s(\d+)-", name)
    return found[1] if found else MISSING


def _eta(run: RunView) -> float | None:
    try:
        return number(run.status.eta)
    except TypeError:  # a damaged status holds anything
        return None


def _epoch_of(run: RunView) -> float | None:
    chosen = run.record.rules.get(BEST_VALID.name) if run.record else None
    return None if chosen is None else number(chosen.epoch)


def _own(run: RunView, rule: str) -> tuple[tuple[str, float], ...]:
    chosen = run.record.rules.get(rule) if run.record else None
    heads = sorted(set(chosen.test) - {FUSED}) if chosen else []
    found = [(head, number(run.score(rule, head))) for head in heads]
    return tuple((head, value) for head, value in found if value is not None)


@dataclass(frozen=True)
class Spark:
    """A small curve, in the units of a drawing `WIDTH` by `HEIGHT`."""

    WIDTH = 80
    HEIGHT = 20

    points: str
    dot: tuple[float, float] | None
    words: str


def spark(row: Row, highest: float) -> Spark | None:
    """Draw a run's validation accuracy between 0 and `highest`, the best of its data set; None without a curve."""
    values = row.curve
    if not values:
        return None
    step = max(1, -(-len(values) // SPARK_POINTS))
    kept = sorted({*range(0, len(values), step), len(values) - 1})

    def place(position: int) -> tuple[float, float]:
        x = 2 + (Spark.WIDTH - 4) * position / max(len(values) - 1, 1)
        y = Spark.HEIGHT - 2 - (Spark.HEIGHT - 4) * values[position] / (highest or 1)
        return round(x, 1), round(y, 1)

    points = " ".join(f"{x:g},{y:g}" for x, y in map(place, kept))
    words = f"{len(values)} epochs, validation {HEADLINE.words} from {HEADLINE.text(values[0])} to "
    words += f"{HEADLINE.text(values[-1])} {HEADLINE.unit}"
    if row.chosen is not None:
        words += f", chosen epoch {row.chosen + 1}"
    return Spark(points, None if row.chosen is None else place(row.chosen), words)


def highest_valid(rows: Sequence[Row]) -> dict[str, float]:
    """Return the best validation accuracy seen on each data set."""
    found: dict[str, float] = {}
    for row in rows:
        found[row.dataset] = max((found.get(row.dataset, 0.0), *row.curve))
    return found
