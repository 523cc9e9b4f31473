"""One run: everything that decides its numbers, by name, and how it is imported again."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmark.errors import Problem, UserError
from benchmark.protocol import Recipe
from benchmark.records import RecordError, RunFolder, old_run_paths, run_path
from benchmark.registry import DATASETS, METHODS, Kind, Plugin
from benchmark.settings import Settings, parse_settings
from benchmark.versions import NUMERICS

if TYPE_CHECKING:
    from benchmark.data import Dataset  # not at run time: launchers plan and watch without torch


OLDER = "the code that it was planned with, from before numbers had versions"

ID_LENGTH = 12
"""Digits of a run's id. Before there were versions, it had ten."""


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
    version: int
    """Version of its numbers, raised by those of its parts."""
    code: str
    """Digest of what of its code is outside the package, where no version is raised; else empty."""


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
    numerics: int
    """Version of the core's numbers."""
    torch: str
    """Version of torch, without the build."""

    @property
    def id(self) -> str:
        """A digest of what changes the numbers: not paths, labels, devices or workers."""
        hidden: Any = {"method": {"label", "source", "attribute"}, "dataset": {"label", "source", "attribute"}}
        content = json.dumps(self.model_dump(mode="json", exclude=hidden), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:ID_LENGTH]

    @property
    def title(self) -> str:
        """A readable name: data set, method, seed."""
        return f"{self.dataset.label} {self.method.label} s{self.seed}"

    def folder(self, out: Path) -> Path:
        """Return the run's folder under the output folder: the one it has from before there were versions, if any."""
        path = run_path(out, self.dataset.name, self.method.name, self.seed, self.id)
        if path.exists():
            return path
        parent = out / self.dataset.name / self.method.name
        old = _old_folders(parent.absolute(), self.seed).get(self.id)
        return path if old is None else parent / old

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_spec(folder: RunFolder) -> RunSpec:
    """Return what a run is, from its folder.

    Raises:
        UserError: when that is damaged.
    """
    where = f"run {folder.path}"
    try:
        content = folder.read_spec()
    except RecordError as error:
        advice = "Give the command again that made it."
        raise UserError(Problem(where, "a sound spec.yaml", str(error), advice)) from None
    return parse_settings(RunSpec, content, where)


@cache
def _old_folders(parent: Path, seed: int) -> dict[str, Path]:
    """Return {id today: folder} of runs from before there were versions, whose folders have another id.

    Read once in a process, since no new ones come.
    """
    found = {}
    for path in old_run_paths(parent, seed):
        try:
            spec = read_spec(RunFolder(path))
        except UserError:  # damaged: what it was cannot be known
            continue
        found[spec.id] = path.relative_to(parent)
    return found


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
        UserError: when its numbers or the core's are of another version than the run was planned with.
    """
    plugin = Plugin(kind, used.name, used.source, used.attribute)
    loaded = plugin.load()
    config = parse_settings(loaded.Config, used.config, f"{kind.singular} {used.name}")
    where, advice = f"{kind.singular} {used.name}", "Give the command again to train with the code as it is now."
    problems = []
    if spec.numerics != NUMERICS:
        planned = f"version {spec.numerics} of the core's numbers, as planned" if spec.numerics else OLDER
        problems.append(Problem("NUMERICS", planned, f"version {NUMERICS}", advice))
    now = plugin.version(loaded, config.parts)
    if used.version != now:
        planned = f"version {used.version} of its numbers, as planned" if used.version else OLDER
        problems.append(Problem(where, planned, f"version {now}", advice))
    elif spec.numerics and plugin.code(loaded, config.parts) != used.code:
        problems.append(Problem(where, "the code that the run was planned with", "other code", advice))
    if problems:
        raise UserError(*problems)
    return loaded, config


def data_folder(data_root: Path | None, kind: type[Dataset], name: str) -> Path | None:
    """Return where a data set's files are: a folder of its name, or of `Dataset.folder`, under the data root."""
    given = data_root or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    return None if given is None else given.expanduser() / (kind.folder or name)
