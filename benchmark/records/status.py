"""How far a run has come: the content of status.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

HEARTBEAT = 10.0
"""Seconds between two heartbeats of a run, unless a cluster's profile says otherwise."""


class State(StrEnum):
    """How far a run has come."""

    PLANNED = "planned"
    QUEUED = "queued"
    """A cluster holds it; never written to status.json, which only its own process and its launcher write."""
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Its process is gone; it goes on from its last checkpoint when the same command is given again."""
    CANCELLED = "cancelled"
    """It was asked to stop; it goes on only when asked for again."""
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class Status:
    """The content of status.json."""

    state: State = State.PLANNED
    attempts: int = 0
    epoch: int = 0
    """Epochs finished."""
    epochs: int = 0
    metric: float | None = None
    """Fused validation accuracy of the last epoch."""
    cause: str = ""
    """Why it failed, in words."""
    host: str = ""
    pid: int = 0
    device: str = ""
    started: float = 0.0
    """Unix time at which the current attempt started."""
    updated: float = 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left, from the pace of the current attempt."""
        return None if self.pace is None else self.pace * (self.epochs - self.epoch)

    first_epoch: int = 0
    """Epochs that were already finished when the current attempt started."""

    @property
    def pace(self) -> float | None:
        """Seconds per epoch in the current attempt."""
        finished = self.epoch - self.first_epoch
        return (self.updated - self.started) / finished if finished > 0 else None

    job: str = ""
    """Slurm job of the current attempt, such as 1234_5; empty without Slurm."""
    gpu: str = ""
    """Number of its GPU on that machine, where the scheduler says it."""
    heartbeat: float = HEARTBEAT
    """Seconds between its heartbeats."""
    stalled: int = 0
    """Attempts in a row, the current one included, that have not finished an epoch."""
    ends: tuple[str, ...] = ()
    """How the earlier attempts ended."""
    dataset: str = ""
    """Labels and seed as in spec.yaml, so that a glance need not read it."""
    method: str = ""
    seed: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the files that must be there: spec.yaml, and all of them when the run is done."""

    def gave_up(self, retries: int) -> bool:
        """Return whether it has been restarted without progress as often as allowed."""
        return self.stalled > retries


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


SOUND: Mapping[str, Callable[[Any], bool]] = {
    "State": lambda value: value in set(State),
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) is int,
    "float": _is_number,
    "float | None": lambda value: value is None or _is_number(value),
    "str": lambda value: isinstance(value, str),
    "tuple[str, ...]": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
    "Mapping[str, int]": lambda value: isinstance(value, dict) and all(type(one) is int for one in value.values()),
}
"""{type of a field of `Status`: what a value from a file must be}"""


def parse_status(content: Mapping[str, Any]) -> Status:
    """Return the status that plain values describe.

    Raises:
        KeyError: when it has no state.
        TypeError, ValueError: when a field is unknown or a value of another kind.
    """
    for one in fields(Status):
        if one.name in content and not SOUND[str(one.type)](content[one.name]):
            raise TypeError(f"{content[one.name]!r} as {one.name}")
    ends = tuple(content.get("ends", ()))
    return Status(**{**content, "state": State(content["state"]), "ends": ends})
