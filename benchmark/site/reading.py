"""Reads a run that may be half written, damaged or outside the folder; what is wrong is returned, never raised."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.records import RunFolder, RunView, view

FILES = ("spec.yaml", "status.json", "history.jsonl", "record.json", "predictions.parquet", "env.json", "log.txt")
"""What the pages read of a run."""

LOG_BYTES = 16_000
"""Most bytes of a log that a page shows."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""(name, inode, nanoseconds of the last change, bytes) of each file of a run that is there."""


def number(value: Any) -> float | None:
    """Return a value if it is a finite number; damaged files hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer too large for a float
        return None


def stamp_of(folder: RunFolder) -> Stamp:
    """Return what changes when the files of a run do."""
    found = []
    for name in FILES:
        try:
            status = (folder.path / name).stat()
        except OSError:
            continue
        found.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def refusal(folder: RunFolder, root: Path) -> str:
    """Return why a run must not be read: it or a file of it is outside `root`, or no regular file; empty if it may.

    A link inside the runs' folder could otherwise show any file of this machine, and a pipe would never end.
    """
    inside = root.resolve()
    for path in (folder.path, *(folder.path / name for name in (*FILES, ".lock"))):
        try:
            mode = path.lstat().st_mode
            if (stat.S_ISLNK(mode) or path is folder.path) and not path.resolve().is_relative_to(inside):
                return f"{path.name} leads out of the runs' folder: not read"
            if path is not folder.path and not stat.S_ISREG(path.stat().st_mode):
                return f"{path.name}: expected a file"
        except FileNotFoundError:
            continue
        except (OSError, RuntimeError) as error:  # links in a circle
            return f"{path.name} cannot be read ({error})"
    return ""


def read_run(folder: RunFolder) -> RunView:
    """Read one run, whatever its files hold."""
    try:
        found = view(folder)
        _ = found.title, found.method, found.dataset, found.seed  # what every page asks for
    except Exception as error:
        return RunView(folder, problem=f"damaged: {type(error).__name__}: {error}".splitlines()[0])
    return found


def read_history(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the epochs of a run that can be read."""
    try:
        return [line for line in folder.read_history() if isinstance(line, dict)]
    except (OSError, ValueError, RecursionError):
        return []


def read_env(folder: RunFolder) -> Any:
    """Return the content of env.json, None if it cannot be read."""
    try:
        return json.loads((folder.path / "env.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def read_log(folder: RunFolder) -> tuple[str, bool]:
    """Return the end of a run's log, control characters made visible, and whether it was cut."""
    try:
        with folder.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(size - LOG_BYTES, 0))
            text = stream.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return "", False
    if size > LOG_BYTES:
        text = text.partition("\n")[2] or text  # the first line was cut
    visible = "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return visible, size > LOG_BYTES


def flatten(content: Any, prefix: str = "") -> dict[str, str]:
    """Return nested settings as {dotted key: text}; lists and empty mappings stay whole, as JSON."""
    if isinstance(content, Mapping) and content:
        flat: dict[str, str] = {}
        for key, value in content.items():
            flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
        return flat
    return {prefix: content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)}
