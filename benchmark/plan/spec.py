"""One run: everything that decides its numbers, by name, and how it is imported again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmark.errors import Problem, UserError
from benchmark.protocol import Recipe
from benchmark.records import run_path
from benchmark.registry import DATASETS, METHODS, Kind, Plugin, code_digest
from benchmark.settings import Settings, parse_settings

if TYPE_CHECKING:
    from benchmark.data import Dataset  # not at run time: launchers plan and watch without torch

NUMERIC_MODULES = (
    "benchmark.data",
    "benchmark.method",
    "benchmark.model",
    "benchmark.protocol",
    "benchmark.training",
    "benchmark.seeds",
    "benchmark.train.evaluation",
    "benchmark.train.trainer",
)
"""Core modules whose code decides a run's numbers."""


class PluginSpec(Settings):
    """A plugin as used in a run."""

    name: str
    label: str
    """The name with every setting that is not at its default, as in `ogm[alpha=0.3]`."""
    source: str
    """Module, or path of a file outside the package."""
    attribute: str = ""
    config: dict[str, Any]
    """Every setting, resolved."""
    code: str
    """Digest of the plugin's code."""


class RunSpec(Settings):
    """One run: everything that decides its numbers, and nothing that does not."""

    method: PluginSpec
    dataset: PluginSpec
    fingerprint: str
    """Digest of the raw data."""
    split: str
    """Digest of which sample trains, selects and tests."""
    weights: dict[str, str]
    """Digest of the pretrained weights of each modality's encoder; empty from scratch."""
    protocol: str
    recipe: Recipe
    seed: int
    core: str
    """Digest of the core's numeric code."""
    torch: str
    """Version of torch, without the build."""

    @property
    def id(self) -> str:
        """A digest of what changes the numbers: not paths, labels, devices or workers."""
        hidden: Any = {"method": {"label", "source", "attribute"}, "dataset": {"label", "source", "attribute"}}
        content = json.dumps(self.model_dump(mode="json", exclude=hidden), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:10]

    @property
    def title(self) -> str:
        """A readable name: data set, method, seed."""
        return f"{self.dataset.label} {self.method.label} s{self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the run's folder under the output folder."""
        return run_path(out, self.dataset.name, self.method.name, self.seed, self.id)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def build_dataset(spec: RunSpec, data_root: Path | None) -> Dataset:
    """Import and construct the data set of a run."""
    kind, config = _load(DATASETS, spec.dataset, spec)
    dataset: Dataset = kind(config, data_folder(data_root, kind, spec.dataset.name))
    return dataset


def load_method(spec: RunSpec) -> tuple[type[Any], Any]:
    """Import the method of a run and return its class and config."""
    return _load(METHODS, spec.method, spec)


def _load(kind: Kind, used: PluginSpec, spec: RunSpec) -> tuple[type[Any], Any]:
    """Import a plugin as planned.

    Raises:
        UserError: when its code or the core's is no longer what the run was planned with.
    """
    plugin = Plugin(kind, used.name, used.source, used.attribute)
    loaded = plugin.load()
    config = parse_settings(loaded.Config, used.config, f"{kind.singular} {used.name}")
    if (plugin.code(loaded, config.parts), code_digest(*NUMERIC_MODULES)) != (used.code, spec.core):
        where = f"{kind.singular} {used.name}"
        advice = "Give the command again to train with the code as it is now."
        raise UserError(Problem(where, "the code that the run was planned with", "other code", advice))
    return loaded, config


def data_folder(data_root: Path | None, kind: type[Dataset], name: str) -> Path | None:
    """Return where a data set's files are: a folder of its name, or of `Dataset.folder`, under the data root."""
    given = data_root or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    return None if given is None else given.expanduser() / (kind.folder or name)
