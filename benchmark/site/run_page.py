"""Everything that a run's own page shows, gathered from its files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmark.metrics import FUSED, HEADLINE, Metric, present
from benchmark.records import RunView, Samples, Seconds
from benchmark.reproduce import reproduce
from benchmark.rules import BEST_VALID, RULES
from benchmark.site.command import typed
from benchmark.site.curve_data import Curves, curves
from benchmark.site.predictions import as_data
from benchmark.site.reading import flatten, number, read_env, read_history, read_log
from benchmark.site.rows import Row
from benchmark.tables.table import MISSING, UNSUPPORTED

MOST_LETTERS = 2000
"""Most letters of one value of the settings or of the environment."""

Score = tuple[Metric, float | None, str]
"""What a run is scored by, its score, and what is shown where there is none."""


@dataclass(frozen=True)
class RunPage:
    """The content of a run's page."""

    row: Row
    facts: Mapping[str, str]
    scores: Sequence[tuple[str, Sequence[Score]]]
    """(head, its metrics by rule, then its probe)"""
    chosen: Sequence[tuple[str, int | None]]
    """(rule, the epoch it chose, from 1)"""
    curves: Curves
    predictions: Mapping[str, Any] | None
    no_predictions: str
    """Why there are none, in words."""
    config: Mapping[str, str]
    command: Sequence[str]
    remark: str
    typed: str
    env: Mapping[str, str]
    attempts: Sequence[str]
    log: str
    log_is_cut: bool
    kept: str
    """The rule whose model is probed, as printed."""
    metrics: Sequence[Metric]
    """Those that have columns."""

    @property
    def data(self) -> dict[str, Any]:
        """What scripts draw, in JSON types."""
        groups = (self.curves.learning, self.curves.signals, self.curves.test)
        charts = {chart.key: asdict(chart) for charts in groups for chart in charts}
        return {
            "page": self.row.page, "epochs": self.curves.epochs, "charts": charts, "predictions": self.predictions,
            "rules": {name: rule.title for name, rule in RULES.items()}, "config": dict(self.config),
        }  # fmt: skip


def gather(run: RunView, row: Row) -> RunPage:
    """Read what a run's page shows; whatever its files hold, this does not raise."""
    modalities = run.record.modalities if run.record else ()
    env = read_env(run.folder)
    command, remark = reproduce(run.spec) if run.spec else ([], "")
    predictions, no_predictions = _predictions(run)
    log, log_is_cut = read_log(run.folder)
    return RunPage(
        row=row,
        facts=_facts(run),
        scores=_scores(run),
        chosen=[(rule, _epoch(run, rule)) for rule in RULES],
        curves=curves(read_history(run.folder), modalities),
        predictions=predictions,
        no_predictions=no_predictions,
        config=config_of(run),
        command=command,
        remark=remark,
        typed=typed(env),
        env=_shortened(flatten(env)) if isinstance(env, Mapping) else {},
        attempts=_attempts(run),
        log=log,
        log_is_cut=log_is_cut,
        kept=(run.record.kept if run.record else BEST_VALID).label,
        metrics=_metrics(run),
    )


def config_of(run: RunView) -> dict[str, str]:
    """Return everything that decides a run's numbers, as {dotted key: text}."""
    return _shortened(flatten(run.spec)) if run.spec else {}


def _shortened(texts: Mapping[str, str]) -> dict[str, str]:
    def cut(text: str) -> str:
        more = len(text) - MOST_LETTERS
        return text if more <= 0 else f"{text[:MOST_LETTERS]} … ({more} more letters)"

    return {key: cut(text) for key, text in sorted(texts.items())}


def _facts(run: RunView) -> dict[str, str]:
    """Return what is known of a run beside its scores, in the order in which a reader asks."""
    status, record = run.status, run.record
    found = {
        "epochs": f"{status.epoch} of {status.epochs}" if status.epochs else "",
        "machine": f"{status.host} {status.device}".strip(),
        "job": status.job,
        "parameters": _count(record.num_parameters) if record else "",
        "operations of one prediction": _count(record.flops) if record else "",
        "samples": _listed(record.num_samples, ",.0f") if record else "",
        "seconds": _listed(record.seconds, ".1f") if record else "",
        "against released code": record.ledger.get("code", "") if record else "",
        "against the paper": record.ledger.get("paper", "") if record else "",
        "folder": run.folder.path.name,
    }
    return {name: text for name, text in found.items() if text}


def _count(value: Any) -> str:
    found = number(value)
    return "" if found is None else f"{found:,.0f}"


def _listed(counts: Samples | Seconds, digits: str) -> str:
    found = sorted((name, number(value)) for name, value in vars(counts).items())
    return ", ".join(f"{name} {value:{digits}}" for name, value in found if value)


def _epoch(run: RunView, rule: str) -> int | None:
    chosen = run.record.rules.get(rule) if run.record else None
    return None if chosen is None else int(chosen.epoch) + 1


def _scores(run: RunView) -> list[tuple[str, list[Score]]]:
    """Return for each head its metrics under each rule, and that of its probe."""
    if not run.record:
        return []
    rows, metrics = [], _metrics(run)
    blanks = {rule: MISSING if run.record.is_defined(rule) else UNSUPPORTED for rule in RULES}
    for head in (FUSED, *run.record.modalities):
        values = [(m, number(run.score(rule, head, m.name)), blanks[rule]) for rule in RULES for m in metrics]
        rows.append((head, [*values, (HEADLINE, number(run.probe(head)), MISSING)]))
    return rows


def _metrics(run: RunView) -> list[Metric]:
    """Return the metrics that the run was scored by."""
    chosen = run.record.rules.values() if run.record else ()
    return present(name for one in chosen for name in one.test.get(FUSED, {}))


def _predictions(run: RunView) -> tuple[dict[str, Any] | None, str]:
    if not run.record:
        return None, "They are written when the run is done."
    try:
        return as_data(run.folder.predictions, run.record.class_names), ""
    except (OSError, ValueError) as error:
        return None, f"They cannot be read: {error}"


def _attempts(run: RunView) -> list[str]:
    """Return how each attempt ended, the last one with its state."""
    status = run.status
    ends = [str(end) for end in status.ends]
    if status.attempts:
        cause = f": {status.cause}" if status.cause else ""
        ends.append(f"{status.state}{cause}")
    return ends


def configs_script(configs: Mapping[str, tuple[str, Mapping[str, str]]]) -> str:
    """Return a script that holds the settings of all runs of a data set, {page: (title, config)}, for comparing two."""
    content = {page: {"title": title, "config": config} for page, (title, config) in sorted(configs.items())}
    return f"window.CONFIGS = {json.dumps(content, ensure_ascii=True, sort_keys=True)};\n"
