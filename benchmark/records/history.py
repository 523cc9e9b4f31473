"""The epochs of a run: the lines of history.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmark.records.record import Scores


@dataclass(frozen=True)
class Epoch:
    """One line of a history, `{"epoch", "train", "valid", "test", "gradients", "lr", "samples"}`.

    There is no `valid` where no samples were held out to validate on.
    """

    line: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """Its number, from 0."""
        return int(self.line["epoch"])

    def scores(self, split: str) -> Scores:
        """Return everything measured on a split, {head: {metric: value}}; empty where it has no samples."""
        found: Scores = self.line.get(split, {})
        return found

    def measured(self, split: str, head: str, metric: str) -> float | None:
        """Return a score on a split, None where it was not measured."""
        found = self.scores(split).get(head, {}).get(metric)
        return None if found is None else float(found)

    def score(self, split: str, head: str, metric: str) -> float:
        """Return a score on a split, `valid` or `test`.

        Raises:
            KeyError: when it was not measured.
        """
        return float(self.line[split][head][metric])
