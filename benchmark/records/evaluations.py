"""What `bench evaluate` adds to a finished run: scores with modalities missing, and with noise on them.

A file names the run that it belongs to and its own version; one of another run or version counts as absent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

from benchmark.bounded import parse_json, read_bytes
from benchmark.records.files import RunFolder

MIXED = "mixed"
"""In place of a modality: one drawn uniformly for each affected sample."""
ALL = "all"
"""In place of a modality: every one."""


@dataclass(frozen=True)
class FusedScore:
    """Scores of the fused prediction on test, as fractions."""

    accuracy: float
    macro_f1: float


@dataclass(frozen=True)
class RateScore(FusedScore):
    """When a share of the test samples lacks a modality."""

    modality: str
    """Which one, or `MIXED`."""
    rate: float
    """Share of the test samples."""
    fill: str
    """What stands in for it."""


@dataclass(frozen=True)
class SubsetScore(FusedScore):
    """When every test sample has the same modalities only."""

    present: tuple[str, ...]
    fill: str
    """What stands in for the others."""


@dataclass(frozen=True)
class NoiseScore(FusedScore):
    """With noise on the inputs."""

    modality: str
    """Which one, or `ALL`."""
    strength: float
    """Standard deviation of the noise over the spread of the training inputs."""


@dataclass(frozen=True)
class Evaluation(ABC):
    """A file of scores in a run's folder: lists of rows. Another kind is one more subclass, in `EVALUATIONS`."""

    FILE: ClassVar[str]
    SCHEMA: ClassVar[int]
    """Version of the file: raised where what is measured or its form changes; runs are then evaluated again."""
    PARTS: ClassVar[Mapping[str, type[FusedScore]]]
    """{field of the subclass, and list in the file: what its rows are}"""

    @abstractmethod
    def untouched(self) -> list[FusedScore]:
        """Return the scores on inputs as they are."""

    @classmethod
    def read(cls, folder: RunFolder, run_id: str) -> Self | None:
        """Return what was measured of a run; None where it is absent, damaged, or of another run or version."""
        try:
            content = parse_json(read_bytes(folder.path / cls.FILE))
            if (content["schema"], content["id"]) != (cls.SCHEMA, run_id):
                return None
            return cls(**{part: [_row(kind, row) for row in content.get(part, ())] for part, kind in cls.PARTS.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, folder: RunFolder, run_id: str) -> None:
        """Write it into a run's folder."""
        folder.write(self.FILE, {"schema": self.SCHEMA, "id": run_id, **asdict(self)})


@dataclass(frozen=True)
class MissingScores(Evaluation):
    """The content of missing.json."""

    FILE = "missing.json"
    SCHEMA = 2
    PARTS = {"rows": RateScore, "subsets": SubsetScore}

    rows: Sequence[RateScore]
    """For each modality, rate and fill."""
    subsets: Sequence[SubsetScore]
    """For each group of modalities, none and all included, and fill."""

    def untouched(self) -> list[FusedScore]:
        return [row for row in self.rows if row.rate == 0]


@dataclass(frozen=True)
class NoiseScores(Evaluation):
    """The content of noise.json."""

    FILE = "noise.json"
    SCHEMA = 1
    PARTS = {"rows": NoiseScore}

    rows: Sequence[NoiseScore]
    """For each modality and strength."""

    def untouched(self) -> list[FusedScore]:
        return [row for row in self.rows if row.strength == 0]


EVALUATIONS: tuple[type[Evaluation], ...] = (MissingScores, NoiseScores)


def is_evaluated(folder: RunFolder, run_id: str) -> bool:
    """Return whether a run has sound files of its own from every evaluation of this version."""
    return all(kind.read(folder, run_id) is not None for kind in EVALUATIONS)


SOUND: Mapping[str, Callable[[Any], bool]] = {
    "float": lambda value: type(value) in (float, int),
    "str": lambda value: isinstance(value, str),
    "tuple[str, ...]": lambda value: isinstance(value, tuple) and all(isinstance(one, str) for one in value),
}
"""{type of a field of a row: what a value from a file must be}"""


def _row(kind: type[FusedScore], values: Mapping[str, Any]) -> FusedScore:
    """Return a row of a file; a damaged one raises."""
    found = {one.name: values[one.name] for one in fields(kind)}
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}
    for one in fields(kind):
        if not SOUND[str(one.type)](found[one.name]):
            raise TypeError(f"expected {one.type} as {one.name}, got {found[one.name]!r}")
    return kind(**found)
