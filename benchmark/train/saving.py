"""Checkpoints of a run: written in one step, read as plain values, and gone on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from benchmark.records import RunFolder, write_atomic
from benchmark.rules import LAST
from benchmark.train.trainer import Trainer

log = logging.getLogger(__name__)


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step."""
    buffer = BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; plain values and tensors only."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def resume(trainer: Trainer, folder: RunFolder) -> float:
    """Load the last checkpoint if there is a sound one; return the seconds spent before it."""
    path = folder.checkpoints / "last.pt"
    if not path.exists():
        folder.cut_history(0)
        return 0.0
    try:
        state = load(path)
        for rule in trainer.rules:
            if rule is not LAST:
                load(folder.checkpoints / f"{rule.name}.pt")
        folder.cut_history(state["epoch"])
    except Exception as error:  # noqa: BLE001  a damaged checkpoint raises whatever its bytes lead to
        log.warning("starting over: the checkpoint cannot be used (%s)", error)
        folder.cut_history(0)
        return 0.0
    trainer.load_state(state)
    log.info("resuming after epoch %d", trainer.epoch)
    return float(state["total"])
