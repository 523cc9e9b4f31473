"""Finished models evaluated again, without training: with modalities missing, and with noise on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmark.data import TaskSpec
from benchmark.errors import Problem, UserError
from benchmark.method import Method
from benchmark.metrics import HEADLINE
from benchmark.plan.spec import RunSpec, build_dataset, check_sources, read_spec
from benchmark.records import Evaluation, Record, RunFolder
from benchmark.robustness import missing_modalities, noisy_inputs
from benchmark.robustness.missing_modalities import moments_of
from benchmark.robustness.noisy_inputs import Noise, tokens_of
from benchmark.seeds import seed_everything
from benchmark.train.execute import load_planned, repeat_exactly
from benchmark.train.restore import restore_method
from benchmark.train.trainer import Feeds


@dataclass(frozen=True)
class _Data:
    """What runs on the same data share."""

    task: TaskSpec
    feeds: Feeds
    noise: Noise


@dataclass
class Evaluator:
    """Evaluates finished runs one after the other; runs on the same data share one loading of it."""

    data_root: Path | None
    device: torch.device
    trust: bool = False
    """Import plugin files that lie in the folder of runs."""
    _loaded: tuple[str, _Data] | None = None

    def evaluate(self, folder: RunFolder) -> None:
        """Evaluate the model of a finished run that is kept (`Record.kept`) and write what is found into its folder.

        Raises:
            RecordError: when the run's own files cannot be read.
            UserError: when data or code are not what the run was made with, the checkpoint is damaged, or it is not
                the one that the record was made with.
        """
        record = folder.read_record()
        spec = read_spec(folder)
        if not self.trust:
            check_sources(spec, folder)
        repeat_exactly(spec.recipe)  # as in training
        data = self._data(spec)
        method = restore_method(spec, data.task, folder.checkpoints / f"{record.kept.name}.pt", self.device)
        with folder.lock():
            folder.remove_litter()
        for found in _measure(method, data, spec):
            _check_record(folder, record, found)
            found.write(folder, record.id)

    def _data(self, spec: RunSpec) -> _Data:
        dataset = build_dataset(spec, self.data_root)
        used = {"dataset", "fingerprint", "split", "weights", "recipe"}
        key = json.dumps(spec.model_dump(mode="json", include=used), sort_keys=True)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees what was loaded before
            feeds = load_planned(spec, dataset, self.device)
            noisy = Noise(spec.dataset.name, moments_of(feeds.train), tokens_of(feeds.train))
            self._loaded = key, _Data(dataset.task, feeds, noisy)
        return self._loaded[1]


def _measure(method: Method, data: _Data, spec: RunSpec) -> Iterator[Evaluation]:
    seed_everything(spec.seed, "missing")
    yield missing_modalities.measure(method, data.feeds, data.noise.moments, spec.dataset.name)
    seed_everything(spec.seed, "noise")
    yield noisy_inputs.measure(method, data.feeds, data.noise)


def _check_record(folder: RunFolder, record: Record, evaluation: Evaluation) -> None:
    """Refuse a checkpoint that, on inputs as they are, does not score what the record says."""
    expected = record.score(record.kept.name)
    for row in evaluation.untouched():
        found = getattr(row, HEADLINE.name)
        if found != expected:
            raise UserError(
                Problem(
                    str(folder.checkpoints / f"{record.kept.name}.pt"),
                    f"the record's test {HEADLINE.words} {expected:.6f} with nothing missing",
                    f"{found:.6f}",
                    "Use the device that it was trained on, or train again: bench run --force.",
                )
            )
