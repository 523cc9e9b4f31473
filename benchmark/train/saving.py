"""Checkpoints of a run: written in one step with a digest, read as plain values, and gone on from."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from benchmark.records import RunFolder, write_atomic
from benchmark.rules import LAST
from benchmark.train.trainer import Trainer

log = logging.getLogger(__name__)

LAST_FILE = f"{LAST.name}.pt"
"""What resuming needs, after the last epoch."""
PREVIOUS_FILE = "previous.pt"
"""The same after the epoch before, should the last one be damaged; gone when the run is done."""

DIGEST = 64
"""Bytes of a digest, in hexadecimal."""
END = b"PK\x05\x06"
"""What the last record of a zip archive, END_BYTES without its comment, begins with."""
END_BYTES = 22


class DamagedCheckpoint(Exception):
    """The bytes of a checkpoint are not those that were written."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint in one step.

    A checkpoint is a zip archive; a digest of it is put in as the archive's comment, which `torch.load` leaves alone.
    """
    buffer = BytesIO()
    torch.save(dict(state), buffer)
    archive = buffer.getvalue()
    digest = hashlib.sha256(archive).hexdigest().encode()
    write_atomic(path, b"".join([memoryview(archive)[:-2], DIGEST.to_bytes(2, "little"), digest]))


def save_last(folder: RunFolder, state: Mapping[str, Any]) -> None:
    """Write what resuming needs, and keep what it needed before."""
    last, previous = folder.checkpoints / LAST_FILE, folder.checkpoints / PREVIOUS_FILE
    with suppress(OSError):  # no such file yet, or a file system without links: then there is one less to go back to
        previous.unlink(missing_ok=True)
        os.link(last, previous)
    save(last, state)


def forget_previous(folder: RunFolder) -> None:
    """Remove what a finished run does not need."""
    (folder.checkpoints / PREVIOUS_FILE).unlink(missing_ok=True)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; plain values and tensors only.

    Raises:
        DamagedCheckpoint: when a byte is not as it was written.
        Exception: whatever torch raises for what is no checkpoint.
    """
    content = path.read_bytes()
    check(content)
    loaded: dict[str, Any] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return loaded


def check(content: bytes) -> None:
    """Raise `DamagedCheckpoint` unless the digest of a checkpoint, or of its parts in older ones, is right."""
    before, digest = memoryview(content)[: -DIGEST - 2], content[-DIGEST:]
    found = hashlib.sha256(before)
    found.update(b"\0\0")  # the length of the comment when there was none
    if found.hexdigest().encode() == digest and content[-DIGEST - 2 : -DIGEST] == DIGEST.to_bytes(2, "little"):
        return
    if content[-END_BYTES:][:4] != END or content[-2:] != b"\0\0":
        raise DamagedCheckpoint("its digest is not that of its bytes")
    with ZipFile(BytesIO(content)) as archive:  # from before there were digests
        wrong = archive.testzip()
    if wrong is not None:
        raise DamagedCheckpoint(f"the checksum of {wrong} is wrong")


def resume(trainer: Trainer, folder: RunFolder) -> tuple[float, str]:
    """Load the last sound checkpoint if there is one.

    Returns:
        The seconds spent before it, and what was damaged and what became of that; empty where nothing was.
    """
    remarks: list[str] = []
    names = (LAST_FILE, PREVIOUS_FILE)
    candidates = [folder.checkpoints / name for name in names if (folder.checkpoints / name).exists()]
    for path in candidates:
        try:
            state = load(path)
            for rule in trainer.rules:
                if rule is not LAST:
                    load(folder.checkpoints / f"{rule.name}.pt")
            folder.cut_history(state["epoch"])
        except Exception as error:  # noqa: BLE001  a damaged checkpoint raises whatever its bytes lead to
            words = str(error).splitlines()[0] if str(error) else type(error).__name__
            log.warning("%s cannot be gone on from: %s", path.name, words)
            remarks.append(f"{path.name} cannot be used ({words})")
            continue
        trainer.load_state(state)
        log.info("resuming after epoch %d", trainer.epoch)
        return float(state["total"]), _told(remarks, f"went on from epoch {trainer.epoch}")
    folder.cut_history(0)
    return 0.0, _told(remarks, "started over")


def _told(remarks: Sequence[str], then: str) -> str:
    return ", ".join([*remarks, then]) if remarks else ""
