"""Trained models as objects: logits and features of new samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmark.data import Dataset, TaskSpec
from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.method import Method
from benchmark.plan.spec import build_dataset, check_sources, read_spec
from benchmark.records import RecordError, RunFolder, RunView
from benchmark.seeds import kept_generators
from benchmark.train.restore import restore_method


@dataclass(frozen=True)
class TrainedModel:
    """A method in eval mode behind its data set's transforms: raw samples in, logits or features out.

    Shapes: B samples, D feature width, K classes. Raw samples are what the data set's `load` returns: a tensor or array
    (B, ...) for each modality, before `Dataset.transform`.
    """

    method: Method
    dataset: Dataset
    device: torch.device

    @property
    def task(self) -> TaskSpec:
        """Names and shapes of the modalities, and the classes."""
        return self.dataset.task

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the logits' columns (K,)."""
        return list(self.task.class_names)

    def predict(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return logits on the CPU: {"fused": (B, K), <modality>: (B, K)}.

        Args:
            inputs: a raw tensor or array (B, ...) for each modality.

        Raises:
            UserError: for modalities that are missing, unknown, or of unequal numbers of samples.
        """
        with torch.no_grad():
            return {head: logits.float().cpu() for head, logits in self.method.predict(self._read(inputs)).items()}

    def classify(self, inputs: Mapping[str, Any]) -> list[str]:
        """Return the name of each sample's most likely class by the fused logits; `inputs` as in `predict`."""
        return [self.class_names[index] for index in self.predict(inputs)["fused"].argmax(1).tolist()]

    def encode(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the encoders' features on the CPU, {modality: (B, D)}; `inputs` as in `predict`."""
        with torch.no_grad():
            return {m: features.float().cpu() for m, features in self.method.net.encode(self._read(inputs)).items()}

    def _read(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return transformed inputs on the device."""
        _check_inputs(inputs, self.task)
        raw = {m: torch.as_tensor(np.asarray(inputs[m])).to(self.device) for m in self.task.modalities}
        return self.dataset.transform(raw, None)


def load_model(
    run: RunView | str | Path, data_root: str | Path | None = None, device: str = "cpu", trust: bool = False
) -> TrainedModel:
    """Return the model of a finished run at its best validation epoch, in eval mode.

    Without validation (`valid_share: 0`) there is no such epoch, and it is the last one's (`Record.kept`).

    Args:
        run: one of `load(...)`, or the run's folder.
        data_root: folder of the data sets, for those whose transforms read something there; else `$BENCH_DATA`.
        device: `cpu`, `cuda` or `cuda:N`.
        trust: import plugin files that lie in the folder of runs, which whoever wrote there may have put there.

    Raises:
        UserError: when the run is not finished or damaged, its code is of another version, or the checkpoint is gone.
    """
    folder = run.folder if isinstance(run, RunView) else RunFolder(Path(run).expanduser())
    try:
        record = folder.read_record()
    except RecordError as error:
        raise UserError(Problem(f"run {folder.path}", "a finished run", str(error), "Let it finish first.")) from None
    spec = read_spec(folder)
    if not trust:
        check_sources(spec, folder)
    dataset = build_dataset(spec, None if data_root is None else Path(data_root))
    target = torch.device(device)
    with kept_generators():
        method = restore_method(spec, dataset.task, folder.checkpoints / f"{record.kept.name}.pt", target)
    return TrainedModel(method.eval(), dataset, target)


def _check_inputs(inputs: Mapping[str, Any], task: TaskSpec) -> None:
    """Raise `UserError` for every modality that is missing, unknown or of another number of samples."""
    problems = Problems()
    for modality in task.modalities:
        with problems.collect():
            if modality not in inputs:
                raise UserError(Problem("inputs", f"an array for {modality}", "none"))
    for name in inputs:
        with problems.collect():
            if name not in task.modalities:
                raise UserError(Problem("inputs", "a modality of the task", repr(name), nearest(name, task.modalities)))
    problems.raise_any()
    sizes = {modality: len(inputs[modality]) for modality in task.modalities}
    if len(set(sizes.values())) > 1 or 0 in sizes.values():
        raise UserError(Problem("inputs", "the same number of samples, at least one, in each modality", str(sizes)))
