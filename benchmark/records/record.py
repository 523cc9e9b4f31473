"""What a finished run was measured to be: the content of record.json, its version and what older ones lack."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.metrics import FUSED, HEADLINE
from benchmark.rules import Rule, kept, needs_validation

Scores = Mapping[str, Mapping[str, float]]
"""{"fused" or modality: {metric: value}}"""

SCHEMA = 1
"""Version of record.json. Raising it takes an entry in `MIGRATIONS` for what was written before."""

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""{schema: what turns a record of that schema into one of the next}"""


class RecordError(Exception):
    """A file of a run is missing, truncated or of another version."""


@dataclass(frozen=True)
class RuleResult:
    """What one selection rule chose, and how it scored."""

    epoch: int
    """From 0."""
    valid: Scores
    test: Scores
    probe: Mapping[str, float] | None = None
    """{modality: test accuracy of a linear classifier on its frozen encoder}; None where no model was kept."""


@dataclass(frozen=True)
class Samples:
    """How many samples each split has."""

    train: int = 0
    valid: int = 0
    test: int = 0


@dataclass(frozen=True)
class Seconds:
    """What a run took, over all attempts."""

    train: float = 0.0
    evaluate: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Record:
    """The content of record.json."""

    id: str
    rules: Mapping[str, RuleResult]
    """{rule: what it chose}"""
    modalities: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    num_samples: Samples = field(default_factory=Samples)
    num_parameters: int = 0
    """Of the network after the last epoch."""
    flops: float | None = None
    """Operations of one prediction; None where they were not counted."""
    seconds: Seconds = field(default_factory=Seconds)
    memory: Mapping[str, int] = field(default_factory=dict)
    """{"process" or "gpu": bytes at the peak}"""
    ledger: Mapping[str, str] = field(default_factory=dict)
    """{"code", "paper": how far the method was compared with them when it ran}; empty where it did not say."""
    gpu_seconds: float = 0.0
    """What it took on GPUs, over all attempts; runs that share a GPU each count their own."""
    job: Mapping[str, str] = field(default_factory=dict)
    """The scheduler's job that finished it, {"id", "partition" or "account": name}; empty without a scheduler."""
    load: float | None = None
    """Load average of its machine at the end, over the minutes that it took; None where it was not noted."""
    files: Mapping[str, int] = field(default_factory=dict)
    """{file that belongs to the record: its bytes}"""
    planned: str = ""
    """Digest of what spec.yaml said; empty in records from before it was noted."""

    def score(self, rule: str, head: str = FUSED, metric: str = HEADLINE.name, split: str = "test") -> float | None:
        """Return a score as recorded, a share as a fraction; None where there is none.

        Args:
            rule: name of a selection rule.
            head: `fused` or a modality, by the method's own logits.
            metric: name of a metric.
            split: `test` or `valid`.
        """
        chosen = self.rules.get(rule)
        if chosen is None:
            return None
        return (chosen.test if split == "test" else chosen.valid).get(head, {}).get(metric)

    @property
    def kept(self) -> Rule:
        """The rule whose model, features and evaluations are kept: the last epoch's where there was no validation."""
        return kept(self.rules)

    def is_defined(self, rule: str) -> bool:
        """Return whether a rule can choose an epoch of this run; one that looks at validation cannot without any."""
        return rule in self.rules or self.num_samples.valid > 0 or not needs_validation(rule)

    def probe(self, rule: str, modality: str) -> float | None:
        """Return the test accuracy of a linear classifier on a frozen encoder; None where there is none."""
        chosen = self.rules.get(rule)
        return None if chosen is None or chosen.probe is None else chosen.probe.get(modality)

    def summary(self) -> dict[str, Any]:
        """Return what a tracker's overview shows, nested: counts, costs, and by rule its epoch and scores."""
        plain = self.plain()
        shown = {key: plain[key] for key in ("num_samples", "num_parameters", "flops", "seconds")}
        return {**shown, **plain["rules"]}

    def plain(self) -> dict[str, Any]:
        """Return it as it is written, with its schema."""
        return {
            "schema": SCHEMA,
            "id": self.id,
            "rules": {name: _plain_rule(chosen) for name, chosen in self.rules.items()},
            "modalities": list(self.modalities),
            "class_names": list(self.class_names),
            "num_samples": vars(self.num_samples),
            "num_parameters": self.num_parameters,
            "flops": self.flops,
            "seconds": vars(self.seconds),
            "memory": self.memory,
            "ledger": self.ledger,
            "gpu_seconds": self.gpu_seconds,
            "job": self.job,
            "load": self.load,
            "files": self.files,
            **({"planned": self.planned} if self.planned else {}),
        }


def parse(content: Mapping[str, Any]) -> Record:
    """Return the record that plain values of today's schema describe.

    Raises:
        RecordError: when something in it is missing or of another kind.
    """
    if not {"files", "rules"} <= set(content):
        raise RecordError("record.json: truncated or damaged (no files or rules)")
    try:
        return Record(
            id=str(content.get("id", "")),
            rules={name: _rule(entry) for name, entry in content["rules"].items()},
            modalities=tuple(map(str, content.get("modalities", ()))),
            class_names=tuple(map(str, content.get("class_names", ()))),
            num_samples=Samples(**_numbers(content.get("num_samples", {}))),
            num_parameters=_number(content.get("num_parameters", 0)),
            flops=None if content.get("flops") is None else _number(content["flops"]),
            seconds=Seconds(**_numbers(content.get("seconds", {}))),
            memory=_numbers(content.get("memory", {})),
            ledger={str(what): str(text) for what, text in content.get("ledger", {}).items()},
            gpu_seconds=_number(content.get("gpu_seconds", 0.0)),
            job={name: str(value) for name, value in content.get("job", {}).items()},
            load=None if content.get("load") is None else _number(content["load"]),
            files=_numbers(content["files"]),
            planned=str(content.get("planned", "")),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"record.json: truncated or damaged ({type(error).__name__}: {error})") from None


def migrate(content: dict[str, Any]) -> dict[str, Any]:
    """Return a record of any schema so far as one of today's.

    Raises:
        RecordError: for a schema that this version does not know.
    """
    schema = content.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise RecordError(
            f"record.json: expected schema {SCHEMA} or older, got {schema}, made by a newer ModalBench; "
            "update it to read this run"
        )
    while type(schema) is int and schema in MIGRATIONS and schema < SCHEMA:
        content, schema = MIGRATIONS[schema](content), schema + 1
    if schema != SCHEMA:
        raise RecordError(f"record.json: expected schema {SCHEMA}, got {schema}")
    return {**content, "schema": SCHEMA}


def _rule(entry: Mapping[str, Any]) -> RuleResult:
    probe = entry.get("probe")
    return RuleResult(
        _number(entry.get("epoch", 0)),
        _scores(entry.get("valid", {})),
        _scores(entry.get("test", {})),
        None if probe is None else _numbers(probe),
    )


def _plain_rule(chosen: RuleResult) -> dict[str, Any]:
    plain = {"epoch": chosen.epoch, "valid": chosen.valid, "test": chosen.test}
    return plain if chosen.probe is None else {**plain, "probe": chosen.probe}


def _scores(heads: Mapping[str, Mapping[str, Any]]) -> Scores:
    return {head: _numbers(scores) for head, scores in heads.items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> Any:
    """Return a number as it is.

    Raises:
        TypeError: when it is something else.
    """
    if type(value) is not float and type(value) is not int:
        raise TypeError(f"expected a number, got {value!r}")
    return value
