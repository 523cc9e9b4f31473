"""What is to be mirrored and what has been, on disk, so that no process has to remember it.

<out>/.track/
    asked/<digest>.json          runs that a command was to mirror, and their sweep
    <tool>/<run id>.json         how mirroring a run ended last
    <tool>/<run id>.lock         held by the process that mirrors the run
    alive                        touched by a mirror at work
    log.txt                      what the last mirror said
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmark.records import RunFolder, to_json, write_atomic


@dataclass(frozen=True)
class Entry:
    """How mirroring a run in a tool ended."""

    digest: str
    """Of what was mirrored."""
    place: str = ""
    """Where it can be seen; empty if it cannot."""
    is_remote: bool = False
    problem: str = ""
    """What did not arrive or went elsewhere, and why; empty if nothing."""
    target: str = ""
    """The server and project that it went to."""
    noted: float = field(default_factory=time.time)
    """Unix time."""


class Ledger:
    """The notes of all mirrors of one output folder."""

    def __init__(self, out: Path) -> None:
        self.path = out / ".track"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def ask(self, trackers: Sequence[str], group: str, folders: Sequence[str]) -> None:
        """Record that runs are to be mirrored, even if the mirrors fail."""
        content = to_json({"trackers": sorted(trackers), "group": group, "runs": sorted(folders)})
        write_atomic(self.path / "asked" / f"{hashlib.sha256(content).hexdigest()[:16]}.json", content)

    def asked(self, tracker: str) -> dict[str, str]:
        """Return the sweeps of the runs that were to be mirrored, by folder; the last one asked for wins."""
        found: dict[str, str] = {}
        for path in sorted(self.path.glob("asked/*.json"), key=lambda path: path.stat().st_mtime):
            content = _read(path)
            if tracker in content.get("trackers", ()):
                found |= dict.fromkeys(content["runs"], content["group"])
        return found

    def note(self, tracker: str, run: str, entry: Entry) -> None:
        write_atomic(self.path / tracker / f"{run}.json", to_json(asdict(entry)))

    def entry(self, tracker: str, run: str) -> Entry | None:
        """Return how mirroring a run ended last time; None if it never has."""
        content = _read(self.path / tracker / f"{run}.json")
        return Entry(**content) if content else None

    def lock(self, tracker: str, run: str) -> FileLock:
        """Return the lock of the process that mirrors a run."""
        (self.path / tracker).mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / tracker / f"{run}.lock", timeout=0)

    def beat(self) -> None:
        """Write a mirror's heartbeat."""
        self.path.mkdir(parents=True, exist_ok=True)
        alive, now = self.path / "alive", time.time()
        alive.touch()
        os.utime(alive, (now, now))  # this machine's clock, not that of a file server

    def last_beat(self) -> float:
        """Return the Unix time of the last heartbeat; 0 if there is none."""
        try:
            return (self.path / "alive").stat().st_mtime
        except FileNotFoundError:
            return 0.0


def _read(path: Path) -> Mapping[str, Any]:
    """Return a JSON object; an empty one if it is not there or damaged, since all of it can be made again."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def digest_of(folder: RunFolder) -> str:
    """Return a digest of all that is mirrored of a run."""
    content = hashlib.sha256(str(folder.last_status().state).encode())
    for name in ("history.jsonl", "record.json"):
        path = folder.path / name
        content.update(path.read_bytes() if path.exists() else b"none")
    return content.hexdigest()[:16]
