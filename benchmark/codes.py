"""Which code made a run's numbers, and of which code the runs of a row are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmark.records import RunView, State
from benchmark.registry import METHODS

SHOWN = 6
"""Digits of a digest that are shown."""


@dataclass(frozen=True)
class Code:
    """Everything of a spec that says which code made the numbers: versions, and digests of plugins of the user's."""

    numerics: int
    dataset: tuple[int, str]
    """Version, and digest of what is outside the package."""
    method: tuple[int, str]

    @classmethod
    def of(cls, run: RunView) -> Code:
        """Return the code of a run whose spec can be read."""
        dataset, method = ((int(run.spec[kind]["version"]), str(run.spec[kind]["code"])) for kind in KINDS)
        return cls(int(run.spec["numerics"]), dataset, method)

    @property
    def versions(self) -> tuple[int, int, int]:
        return self.numerics, self.dataset[0], self.method[0]

    @property
    def words(self) -> str:
        """All of it: `1.1.2` for core, data set and method, with a digest of what is outside the package."""
        digests = [digest[:SHOWN] for _, digest in (self.dataset, self.method) if digest]
        return " ".join([".".join(map(str, self.versions)), *digests])

    def differs(self, other: Code) -> str:
        """Say what of this code is not that of another: `version 1`, `code 1a2b3c`; empty where all is the same."""
        words = [f"core version {self.numerics}"] if self.numerics != other.numerics else []
        for name, (version, digest), (theirs, their_digest) in (
            ("data set ", self.dataset, other.dataset),
            ("", self.method, other.method),
        ):
            if version != theirs:
                words.append(f"{name}version {version}")
            elif digest != their_digest:
                words.append(f"{name}code {digest[:SHOWN]}")
        return ", ".join(words)


KINDS = ("dataset", "method")


def setting_of(run: RunView) -> str:
    """Return everything of a run but seed, code and torch: runs with the same setting would be seeds of one row."""
    parts = [run.dataset, run.method, *(run.spec[key] for key in ("protocol", "recipe", "fingerprint", "split"))]
    return json.dumps(parts, sort_keys=True)


def newest(runs: Iterable[RunView]) -> Code:
    """Return the newest code of runs: one that a run has finished with, of the highest versions, used last."""
    ranks = {(run.status.state is State.DONE, Code.of(run).versions, run.status.updated, str(Code.of(run))): run
             for run in runs}  # fmt: skip
    return Code.of(ranks[max(ranks)])


def split(runs: Iterable[RunView]) -> tuple[list[RunView], list[RunView]]:
    """Return the runs whose numbers may be in one row of each setting, and those of older code; in the given order.

    A run that has not finished has no number: it stays where it is of later code, and says what is under way.
    """
    alike: dict[str, list[RunView]] = {}
    kept: list[RunView] = []
    older: list[RunView] = []
    runs = list(runs)
    for run in runs:
        alike.setdefault(setting_of(run), []).append(run)
    chosen = {setting: newest(found) for setting, found in alike.items()}
    last = {
        setting: max(run.status.updated for run in found if Code.of(run) == chosen[setting])
        for setting, found in alike.items()
    }
    for run in runs:
        setting, code = setting_of(run), Code.of(run)
        later = code.versions, run.status.updated
        open_ = run.status.state is not State.DONE and later > (chosen[setting].versions, last[setting])
        (kept if code == chosen[setting] or open_ else older).append(run)
    return kept, older


def behind(runs: Sequence[RunView]) -> dict[str, str]:
    """Return {label: what is older} of settings of a method whose numbers are of older code than its other settings'.

    Methods that are made of others, and whose versions rise with theirs, are not compared with themselves.
    """
    by_name: dict[str, list[RunView]] = {}
    for run in runs:
        if run.status.state is State.DONE and not _has_parts(run):
            by_name.setdefault(str(run.spec["method"]["name"]), []).append(run)
    found: dict[str, str] = {}
    for alike in by_name.values():
        latest = newest(alike)
        found |= {run.method: words for run in alike if (words := Code.of(run).differs(latest))}
    return found


def _has_parts(run: RunView) -> bool:
    config = run.spec["method"].get("config") or {}
    names = [value for value in config.values() if isinstance(value, str)]
    return any(name.endswith(".py") or name in METHODS.known() for name in names)
