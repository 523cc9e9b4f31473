"""How sweeps were started, on record before they start: what `bench wait` and `bench retry` go on with.

<out>/.sweeps/<engine>/<time>-<token>.json   one `SweepRecord` each; a folder tells which engines have something here
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.bounded import parse_json, read_bytes
from benchmark.errors import UserError
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan.spec import RunSpec
from benchmark.records import to_json, write_atomic
from benchmark.settings import Settings, parse_settings

FOLDER = ".sweeps"
OLD = {".jobs": "slurm"}
"""Folders that show which engines were at work before sweeps were recorded."""


class SweepRecord(Settings):
    """How one sweep was started."""

    created: float
    """Unix time."""
    sweep: str
    """Its name, for mirrors; empty if it has none."""
    options: LaunchOptions
    """How and where; `out` is the folder that the record is in, wherever that has moved to."""
    known: dict[str, Any]
    """What the engine must know to go on, as its `prepare` returned it."""
    runs: list[str]
    """Folders of its runs below the output folder."""


def write_sweep(options: LaunchOptions, known: Mapping[str, Any], specs: Sequence[RunSpec], sweep: str = "") -> None:
    """Record that runs are about to be started. Each has a folder with its spec from then on.

    Args:
        options: how and where, resolved.
        known: what the engine must know to go on.
        specs: the runs.
        sweep: name of the sweep.
    """
    out, created = options.out, time.time()
    for spec in specs:
        path, content = spec.folder(out) / "spec.yaml", spec.to_yaml().encode()
        if not path.exists() or path.read_bytes() != content:  # a plugin file may have moved
            write_atomic(path, content)
    record = SweepRecord(
        created=created,
        sweep=sweep,
        options=replace(options, out=Path(), force=False, detach=False, mix_threads=False, trust=False),
        known=dict(known),
        runs=[str(spec.folder(out).relative_to(out)) for spec in specs],
    )
    name = time.strftime("%Y%m%d-%H%M%S-", time.localtime(created)) + secrets.token_hex(4)
    write_atomic(out / FOLDER / options.engine / f"{name}.json", to_json(record.model_dump(mode="json")))


def read_sweeps(out: Path) -> list[SweepRecord]:
    """Return how sweeps under an output folder were started, oldest first; one that is damaged is left out."""
    found = []
    for path in (out / FOLDER).glob("*/*.json"):
        try:
            record = parse_settings(SweepRecord, parse_json(read_bytes(path)), str(path))
        except (OSError, ValueError, UserError):
            continue
        found.append(record.model_copy(update={"options": replace(record.options, out=out)}))
    return sorted(found, key=lambda record: record.created)


def engines_at(out: Path) -> list[str]:
    """Return the names of the engines that have, or had, something under an output folder."""
    recorded = {path.name for path in (out / FOLDER).glob("*") if path.is_dir()}
    return sorted(recorded | {engine for folder, engine in OLD.items() if (out / folder).is_dir()})
