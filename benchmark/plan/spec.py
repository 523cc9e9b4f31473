"""One run: everything that decides its numbers, by name, and how it is imported again."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmark.errors import Problem, UserError
from benchmark.protocol import Recipe
from benchmark.records import RecordError, RunFolder, old_run_paths, run_path, write_atomic
from benchmark.registry import DATASETS, METHODS, Kind, Plugin, file_digest
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
    file: str = ""
    """Digest of the file alone where `source` is one: what is compared before anything is imported."""


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
    replaced: dict[str, Any] = {}
    """What the protocol itself says where the user wanted another recipe, {key with dots: value}. No part of the id."""

    @property
    def id(self) -> str:
        """A digest of what changes the numbers: not paths, labels, devices or workers."""
        aside = {"label", "source", "attribute", "file"}
        hidden: Any = {"method": aside, "dataset": aside, "replaced": True}
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


def keep_spec(spec: RunSpec, folder: RunFolder) -> None:
    """Write what a run is into its folder, unless a sound file says the same there already.

    That one was written by the plan, and names the plugin file of the user where a job on a cluster has a copy of it.
    """
    with suppress(UserError):
        if read_spec(folder).id == spec.id:
            return
    write_atomic(folder.path / "spec.yaml", spec.to_yaml().encode())


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
    _check_source(plugin, used)
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


def _check_source(plugin: Plugin, used: PluginSpec) -> None:
    """Raise `UserError` unless what is about to be imported is what the run was planned with.

    A spec may have come from anybody, and importing a module runs it: so only plugins that are installed under that
    name are imported, and of files only those with the code that was planned.
    """
    where, advice = f"{plugin.kind.singular} {used.name}", "Give the command again to train with the code as it is now."
    if not plugin.is_file:
        known = plugin.kind.known().get(used.name)
        if known is None or (known.source, known.attribute) != (used.source, used.attribute):
            expected = f"its module, {known.source}" if known else "an installed plugin of that name"
            raise UserError(Problem(where, expected, repr(used.source), advice))
        return
    try:
        now = file_digest(Path(used.source))
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        words = f"{type(error).__name__}: {error}"
        raise UserError(Problem(where, "a module that imports", words, f"Fix {used.source}.")) from None
    if now != (used.file or used.code):
        raise UserError(Problem(where, "the code that the run was planned with", "other code", advice))


def check_sources(spec: RunSpec, folder: RunFolder) -> None:
    """Raise `UserError` for each plugin file of a run that lies in the output folder, or where that is not known.

    Whoever gives away a folder of runs could have put it there.
    """
    out, problems = _out_of(spec, folder.path.resolve()), []
    for kind, used in ((METHODS, spec.method), (DATASETS, spec.dataset)):
        source = Path(used.source).resolve()
        if used.source.endswith(".py") and (out is None or source.is_relative_to(out)):
            advice = "Look at it, and give --trust if it may be run."
            problems.append(
                Problem(f"{kind.singular} {used.name}", "code outside the folder of runs", str(source), advice)
            )
    if problems:
        raise UserError(*problems)


def _out_of(spec: RunSpec, path: Path) -> Path | None:
    """Return the output folder that a run's folder is in: the highest that its names allow, None if they allow none."""
    names = (spec.dataset.name, spec.method.name)
    for up in (3, 2):
        if len(path.parents) > up and (path.parents[up - 1].name, path.parents[up - 2].name) == names:
            return path.parents[up]
    return None


def data_folder(data_root: Path | None, kind: type[Dataset], name: str) -> Path | None:
    """Return where a data set's files are: a folder of its name, or of `Dataset.folder`, under the data root."""
    given = data_root or (Path(os.environ["BENCH_DATA"]) if os.environ.get("BENCH_DATA") else None)
    return None if given is None else given.expanduser() / (kind.folder or name)
