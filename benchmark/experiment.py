"""Experiment files: a sweep and its report written down, one YAML for each table or figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmark.errors import Problem, UserError
from benchmark.protocol import read_yaml
from benchmark.settings import Settings, parse_settings


class Experiment(Settings):
    """The keys of an experiment file, each meaning what the option of that name means."""

    about: str = ""
    """What the experiment shows and where it comes from."""
    methods: list[str]
    datasets: list[str]
    seeds: str = "0"
    protocol: str = "unified"
    epochs: int | None = None
    batch_size: int | None = None
    precision: str | None = None
    set: list[str] = []


def read_experiment(path: Path) -> dict[str, Any]:
    """Return the options that an experiment file gives.

    Raises:
        UserError: when the file is missing or malformed, or has an unknown key.
    """
    if not path.is_file():
        raise UserError(Problem("experiment", "a YAML file", str(path)))
    where = f"experiment {path}"
    content = parse_settings(Experiment, read_yaml(path.read_text(encoding="utf-8"), where), where)
    given = content.model_dump(exclude={"about"}, exclude_none=True)
    return {**given, "methods": ",".join(content.methods), "datasets": ",".join(content.datasets)}
