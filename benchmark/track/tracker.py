"""The contract of a tracking tool, and what it is told about a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

Scalar = float | int | str


class TrackError(Exception):
    """A tracking tool could not take something; says what, for the user."""


@dataclass(frozen=True)
class Page:
    """What a tool is told about a run before its first epoch."""

    id: str
    """The id of the run, the same in every attempt."""
    title: str
    group: str
    """The sweep it belongs to."""
    tags: Sequence[str]
    config: Mapping[str, Any]
    folder: str
    """The run's folder below the output folder."""


@dataclass(frozen=True)
class Grid:
    """A table of plain values."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Scalar | None]]


@dataclass(frozen=True)
class Ending:
    """What a tool is told when no process works on the run any more."""

    state: str
    is_done: bool
    summary: Mapping[str, Scalar]
    tables: Mapping[str, Grid] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name."""


@dataclass(frozen=True)
class Outcome:
    """Where a run can be seen."""

    place: str
    """A web address, or a path below the output folder."""
    is_remote: bool
    """Whether it is where it was meant to be, on a server or wherever the tool keeps things."""
    reason: str = ""
    """Why it is only on this disk, if it was meant for a server."""


class Mirror(ABC):
    """One run in one tool."""

    @property
    @abstractmethod
    def num_epochs(self) -> int:
        """How many epochs the tool has been given, in earlier sessions too where it keeps them."""

    @abstractmethod
    def add(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Give the tool an epoch; they come in order. Never waits for a network."""

    @abstractmethod
    def finish(self, ending: Ending) -> Outcome:
        """Give the tool the rest, and check whether everything has arrived.

        Raises:
            TrackError: when it has not.
        """


class Tracker(ABC):
    """A tracking tool, as used for the runs of one output folder."""

    title: ClassVar[str]
    """Its name in messages."""
    has_server: ClassVar[bool] = False
    """Whether `bench sync` can bring runs there later."""

    def __init__(self, out: Path, must_upload: bool = False) -> None:
        """Prepare the tool in this process, which was started with the variables of `environment`.

        Args:
            out: output folder of the runs, absolute.
            must_upload: rather raise than keep a run on this disk that is meant for a server.

        Raises:
            TrackError: when it cannot be used at all.
        """
        self.out = out
        self.must_upload = must_upload

    @classmethod
    def environment(cls, out: Path) -> Mapping[str, str | None]:
        """Return environment variables that its process needs from the start, None for those it must not have."""
        return {}

    @property
    def target(self) -> str:
        """Where runs go: what was uploaded elsewhere is not there yet."""
        return ""

    def close(self) -> None:  # noqa: B027  most have nothing to clear up
        """Clear up when the process is about to end."""

    @abstractmethod
    def open(self, page: Page) -> Mirror:
        """Begin to show a run, or go on.

        Raises:
            TrackError: when the tool does not take it.
        """
