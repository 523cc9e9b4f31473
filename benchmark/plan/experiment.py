"""Experiment files: a sweep and its report written down, one YAML for each table or figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import field_validator

from benchmark.plan.sweep import Sweep
from benchmark.plan.typed import split_plugins
from benchmark.protocol import read_text, read_yaml
from benchmark.settings import Settings, parse_settings


class Experiment(Settings):
    """The keys of an experiment file, each meaning what the option of that name means."""

    about: str = ""
    """What the experiment shows and where it comes from."""
    methods: list[str]
    datasets: list[str]
    seeds: str = "0"
    """As typed on the command line, or a number, or a list of numbers."""
    protocol: str = "unified"
    epochs: int | None = None
    batch_size: int | None = None
    precision: str | None = None
    set: list[str] = []
    presets: bool = False
    reports: list[str] = []
    """What `bench report` makes of it; every report if none is named."""
    out: str = ""
    """Where `bench run` and `bench report` keep and find the runs; `--out` wins."""
    track: list[str] = []
    """Tracking tools that mirror the runs."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _write_seeds(cls, given: Any) -> Any:
        """Write numbers as they are typed."""
        listed = given if isinstance(given, list) else [given]
        numbers = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in listed)
        return ",".join(map(str, listed)) if listed and numbers else given


def read_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        UserError: when it is missing or malformed, or has an unknown key.
    """
    where = f"experiment {path}"
    return parse_settings(Experiment, read_yaml(read_text(path, "experiment"), where), where)


def sweep_of(path: Path | None, options: Mapping[str, Any], data_root: Path | None) -> Sweep:
    """Return the sweep that an experiment file and options describe; options win.

    Args:
        path: the experiment file, if any.
        options: what was given on the command line, by the names of `Experiment`'s keys; lists as typed, with commas.
        data_root: where the data sets are.
    """
    given = (
        {}
        if path is None
        else read_experiment(path).model_dump(exclude={"about", "reports", "track", "out"}, exclude_none=True)
    )
    given |= {key: split_plugins(value) if key in ("methods", "datasets") else value for key, value in options.items()}
    return Sweep(
        methods=given.get("methods", []),
        datasets=given.get("datasets", []),
        seeds=given.get("seeds", "0"),
        protocol=given.get("protocol", "unified"),
        settings=given.get("set", []),
        recipe={key: given[key] for key in ("epochs", "batch_size", "precision") if key in given},
        presets=given.get("presets", False),
        data_root=data_root,
    )
