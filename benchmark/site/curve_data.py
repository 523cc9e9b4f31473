"""What a run's history holds, as charts of series over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmark.metrics import FUSED, HEADLINE
from benchmark.records import dig
from benchmark.site.reading import number

MOST_VALUES = 20_000
"""Most numbers of all charts of a page; longer histories are shown at every n-th epoch, and say so."""

History = Sequence[Mapping[str, Any]]
Values = list[float | None]


@dataclass(frozen=True)
class Chart:
    """Some series over epochs."""

    key: str
    title: str
    unit: str
    series: Mapping[str, Values]


@dataclass(frozen=True)
class Curves:
    """The charts of a run, by what they may be used for."""

    epochs: list[int]
    every: int
    """Shown is every n-th epoch."""
    learning: list[Chart] = field(default_factory=list)
    """Training losses and validation: what a choice may rest on."""
    signals: list[Chart] = field(default_factory=list)
    """What the method logs of itself."""
    test: list[Chart] = field(default_factory=list)
    """For looking only."""


def curves(history: History, modalities: Sequence[str]) -> Curves:
    """Return the charts of a run.

    Args:
        history: the lines of history.jsonl.
        modalities: the order of the modalities, where it is known.
    """
    names = list({key for line in history for key in _keys(line, "train")})
    heads = list({head for line in history for part in ("valid", "test") for head in _keys(line, part)})
    order = {name: position for position, name in enumerate((FUSED, *modalities))}

    def place(name: str) -> tuple[int, str]:
        return order.get(name.partition("/")[2] or name, len(order)), name

    heads.sort(key=place)
    names.sort(key=place)
    count = len(history) * (len(names) + 2 * len(heads))
    every = max(1, -(-count // MOST_VALUES))
    shown = [line for position, line in enumerate(history) if position % every == 0 or position == len(history) - 1]

    def series(*keys: str, scale: float = 1.0) -> Values:
        found = [number(dig(line, *keys)) for line in shown]
        return [None if value is None else float(f"{scale * value:.5g}") for value in found]

    def headline(part: str) -> dict[str, Values]:
        return {head: series(part, head, HEADLINE.name, scale=HEADLINE.scale) for head in heads}

    losses: dict[str, Values] = {}
    groups: dict[str, dict[str, Values]] = {}
    for name in names:
        group, _, part = name.partition("/")
        values = series("train", name)
        if group == "loss":
            losses[part or "total"] = values
        else:
            groups.setdefault(group, {})[part or group] = values
    epochs = [int(number(line.get("epoch")) or 0) + 1 for line in shown]
    learning = [
        Chart("valid", f"Validation {HEADLINE.words}", HEADLINE.unit, headline("valid")),
        Chart("loss", "Training loss", "", losses),
    ]
    signals = [Chart(f"signal-{n}", group, "", values) for n, (group, values) in enumerate(sorted(groups.items()))]
    test = [Chart("test", f"Test {HEADLINE.words}", HEADLINE.unit, headline("test"))]
    kept = [[chart for chart in charts if _has_values(chart)] for charts in (learning, signals, test)]
    return Curves(epochs, every, *kept)


def _keys(line: Mapping[str, Any], part: str) -> list[str]:
    found = dig(line, part)
    return [str(key) for key in found] if isinstance(found, Mapping) else []


def _has_values(chart: Chart) -> bool:
    return any(value is not None for values in chart.series.values() for value in values)
