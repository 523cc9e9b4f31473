"""Trained models back from a run's folder."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmark.data import TaskSpec
from benchmark.errors import Problem, UserError
from benchmark.method import Method
from benchmark.plan.spec import RunSpec, load_method
from benchmark.train.execute import describe
from benchmark.train.saving import load
from benchmark.train.trainer import build_method


def restore_method(spec: RunSpec, task: TaskSpec, path: Path, device: torch.device) -> Method:
    """Return a run's method with the weights of a checkpoint, on a device.

    Args:
        spec: the run.
        task: that of its data set.
        path: the checkpoint, such as `RunFolder.checkpoints / f"{record.kept.name}.pt"`.
        device: where to.

    Raises:
        UserError: when the code is no longer what the run was planned with, or the checkpoint is missing or damaged.
    """
    kind, config = load_method(spec)
    method = build_method(kind, config, task, spec.recipe, spec.seed, device)
    try:
        method.load_state_dict(load(path)["method"])
    except Exception as error:  # noqa: BLE001  a damaged checkpoint raises whatever its bytes lead to
        raise UserError(
            Problem(str(path), "the weights of the best epoch", describe(error), "Train again: bench run --force.")
        ) from None
    return method
