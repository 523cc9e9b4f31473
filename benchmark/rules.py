"""How the epoch that is reported is chosen: each rule once, with its name, its label and what it maximises.

A rule that is added to `RULES` is computed in every new run and has its columns in tables, CSV, pages and trackers;
records without it show a dash.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Protocol

from benchmark.metrics import ACCURACY, FUSED, LOSS

DAGGER = "†"
"""Marks whatever was chosen by looking at test."""


class Scored(Protocol):
    """One epoch of a run, with what was measured after it."""

    @property
    def epoch(self) -> int:
        """Its number, from 0."""

    def score(self, split: str, head: str, metric: str) -> float:
        """Return a score on a split, `valid` or `test`."""


@dataclass(frozen=True)
class Rule:
    """A way to choose the epoch that is reported."""

    name: str
    """Its key in records and in `protocol.selection`."""
    label: str
    """As printed in tables, CSV and pages, but for the dagger."""
    about: str
    key: Callable[[Scored], tuple[float, ...]]
    """What to maximise over the epochs; the first one wins a tie."""
    looks_at: str = ""
    """The split that decides: `valid`, `test`, or empty for none."""

    @property
    def honest(self) -> bool:
        """Whether it never looks at test."""
        return self.looks_at != "test"

    @property
    def dagger(self) -> str:
        return "" if self.honest else DAGGER

    @property
    def title(self) -> str:
        """Its label, with a dagger where it looked at test."""
        return self.label + self.dagger


BEST_VALID = Rule(
    "best_valid",
    "best valid",
    "highest fused validation accuracy, ties by lower validation loss",
    lambda one: (one.score("valid", FUSED, ACCURACY.name), -one.score("valid", FUSED, LOSS.name)),
    looks_at="valid",
)
LAST = Rule("last", "last", "the last epoch", lambda one: (one.epoch,))
ORACLE_TEST = Rule(
    "oracle_test",
    "oracle",
    "highest fused test accuracy, as much of the literature does",
    lambda one: (one.score("test", FUSED, ACCURACY.name),),
    looks_at="test",
)


def heading(rule: Rule, metric: str) -> str:
    """Return what stands above a test score: `test acc (epoch: best valid)`. "best valid" alone says no split."""
    return f"test {metric} (epoch: {rule.title})"


RULES = {rule.name: rule for rule in (BEST_VALID, LAST, ORACLE_TEST)}
"""{name: rule}, in the order of their columns. All are computed in every run."""


def needs_validation(name: str) -> bool:
    """Return whether a rule is not defined where training leaves no samples to validate on."""
    return name in RULES and RULES[name].looks_at == "valid"


def kept(names: Container[str]) -> Rule:
    """Return the rule whose model is kept and evaluated, from the rules of a run: the last epoch's without validation.

    Whatever shows that model says which rule it is.
    """
    return BEST_VALID if BEST_VALID.name in names else LAST


def title(name: str) -> str:
    """Return the title of a rule; of one that this version does not know, its name."""
    return RULES[name].title if name in RULES else name


def dagger(name: str) -> str:
    """Return the dagger of a rule that looks at test, else nothing."""
    return RULES[name].dagger if name in RULES else ""


def known_rule(name: str) -> str:
    """Return the name of a rule.

    Raises:
        ValueError: with the names that there are.
    """
    if name not in RULES:
        *others, last = map(repr, RULES)
        raise ValueError(f"{', '.join(others)} or {last}")
    return name
