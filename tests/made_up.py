"""Runs that were never trained: every file that reports read, with the numbers you want."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmark.records import SCHEMA, RunFolder, State, Status

MODALITIES = ("audio", "video")
RULES = ("best_valid", "last", "oracle_test")


def entry(accuracy: float, heads: Sequence[str] = ("fused", *MODALITIES)) -> dict[str, Any]:
    """Return the scores of one rule of a record, all of them `accuracy`."""
    valid = {head: {"accuracy": accuracy, "macro_f1": accuracy, "loss": 1.0} for head in heads}
    test = {head: {**scores, "map": accuracy} for head, scores in valid.items()}
    return {"epoch": 0, "valid": valid, "test": test, "probe": {head: accuracy for head in heads if head != "fused"}}


def spec_of(
    method: str, dataset: str, seed: int, protocol: str = "unified", name: str | None = None, code: str = "code",
    **recipe: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of spec.yaml; `name` is the method's without settings, by default its label."""
    plain = {"source": "", "attribute": "", "config": {}, "version": 1}
    return {
        "method": {"name": name or method, "label": method, "code": code, **plain},
        "dataset": {"name": dataset, "label": dataset, "code": "code", **plain},
        "fingerprint": "data", "split": "split", "weights": {}, "protocol": protocol, "seed": seed,
        "numerics": 1, "torch": "2",
        "recipe": {"epochs": 2, "selection": "best_valid", **recipe},
    }  # fmt: skip


def write_status(folder: RunFolder, status: Status) -> None:
    (folder.path / "status.json").write_text(json.dumps(asdict(status)), encoding="utf-8")


def write_run(
    path: Path, spec: Mapping[str, Any], accuracy: float = 0.5, oracle: float | None = None,
    state: State = State.DONE, cause: str = "", updated: float = 1.0,
) -> RunFolder:  # fmt: skip
    """Write a run whose predictions nobody can read."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    write_spec(folder, spec)
    write_status(folder, Status(state, 1, 2, 2, accuracy, cause, updated=updated))
    scores = entry(accuracy)["valid"]
    lines = [{"epoch": epoch, "valid": scores, "test": scores} for epoch in range(2)]
    write_history(folder, lines)
    if state is State.DONE:
        folder.predictions.write_bytes(b"predictions")
        chosen = {"best_valid": accuracy, "last": accuracy, "oracle_test": accuracy if oracle is None else oracle}
        write_record(folder, {rule: entry(score) for rule, score in chosen.items()})
    return folder


def write_full_run(
    path: Path, spec: Mapping[str, Any], skill: float = 0.7, num_samples: int = 40, num_classes: int = 3,
    num_epochs: int = 4,
) -> RunFolder:  # fmt: skip
    """Write a finished run with logits, features, curves and scores with modalities missing, all made up.

    Args:
        path: its folder.
        spec: as of `spec_of`.
        skill: share of the test samples that the fused prediction gets right, about.
        num_samples: test samples, the same for every run of a data set.
        num_classes: classes.
        num_epochs: lines of history.jsonl.
    """
    folder = RunFolder(path)
    folder.path.mkdir(parents=True)
    write_spec(folder, spec)
    labels = np.arange(num_samples) % num_classes
    skills = {"fused": skill, **dict.fromkeys(MODALITIES, skill - 0.2)}
    random = np.random.default_rng(
        zlib.crc32(f"{spec['dataset']['label']} {spec['method']['label']} {spec['seed']}".encode())
    )
    logits = {rule: {head: draw_logits(random, labels, skills[head]) for head in skills} for rule in RULES}
    write_predictions(folder, logits, labels)
    write_record(folder, {rule: scored(found, labels) for rule, found in logits.items()}, num_classes)
    curves = []
    for epoch in range(num_epochs):
        scores = entry(skill * (epoch + 1) / num_epochs)["valid"]
        losses = (np.arange(len(MODALITIES)) + 2) / (epoch + 1) * random.uniform(0.8, 1.2, len(MODALITIES))
        train = {"loss": 2.0, **{f"loss/{m}": float(loss) for m, loss in zip(MODALITIES, losses, strict=True)}}
        curves.append({"epoch": epoch, "valid": scores, "test": scores, "train": train, "lr": [0.1], "samples": 100})
    write_history(folder, curves)
    write_status(folder, Status(State.DONE, 1, num_epochs, num_epochs, skill))
    return folder


def draw_logits(random: np.random.Generator, labels: np.ndarray, skill: float) -> np.ndarray:
    """Return logits (N, K), the largest at the label for about `skill` of the samples."""
    logits = random.normal(size=(len(labels), labels.max() + 1)).astype(np.float32)
    right = random.random(len(labels)) < skill
    logits[right, labels[right]] = 4.0
    return logits


def scored(logits: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Any]:
    """Return a rule's entry of a record; only accuracies are those of the logits."""
    found = {head: float((values.argmax(1) == labels).mean()) for head, values in logits.items()}
    scores = entry(0.5, tuple(logits))
    for head, accuracy in found.items():
        scores["test"][head]["accuracy"] = accuracy
        scores["valid"][head]["accuracy"] = accuracy
    return scores


def write_predictions(folder: RunFolder, logits: Mapping[str, Mapping[str, np.ndarray]], labels: np.ndarray) -> None:
    """Write predictions.parquet as training does: a row for each rule and sample."""
    count = len(labels)
    columns: dict[str, Any] = {
        "rule": np.repeat(list(logits), count),
        "id": [f"sample{number:05d}" for number in range(count)] * len(logits),
        "label": np.tile(labels, len(logits)).astype(np.int64),
    }
    for head in next(iter(logits.values())):
        values = np.concatenate([found[head] for found in logits.values()])
        columns[head] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    pq.write_table(pa.table(columns), folder.predictions, use_dictionary=["rule", "id"])


def write_spec(folder: RunFolder, spec: Mapping[str, Any]) -> None:
    text = yaml.dump(dict(spec), Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    (folder.path / "spec.yaml").write_text(text, encoding="utf-8")


def write_history(folder: RunFolder, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write history.jsonl, without waiting for the disk as training does."""
    text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)
    (folder.path / "history.jsonl").write_text(text, encoding="utf-8")


def write_record(folder: RunFolder, rules: Mapping[str, Any], num_classes: int = 2) -> None:
    """Write record.json for the predictions that are there; NaN is written as such."""
    content = {
        "schema": SCHEMA, "id": folder.path.name.partition("-")[2],
        "modalities": list(MODALITIES), "class_names": list("abcdefghijklmnopqrstuvwxyz"[:num_classes]),
        "rules": rules,
        "num_samples": {"train": 1, "valid": 1, "test": 1}, "num_parameters": 1,
        "seconds": {"train": 1.0, "evaluate": 1.0, "total": 2.0},
        "files": {"predictions.parquet": folder.predictions.stat().st_size},
    }  # fmt: skip
    (folder.path / "record.json").write_text(json.dumps(content), encoding="utf-8")
