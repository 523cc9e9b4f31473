"""From a sweep as typed to its runs: resolve, validate, name. Nothing is started here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cache import cached_text
from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.plan.spec import PluginSpec, RunSpec, data_folder
from benchmark.plan.typed import MAX_RUNS, parse_assignments, parse_bracketed, parse_seeds
from benchmark.protocol import Protocol, Recipe, load_protocol
from benchmark.registry import DATASETS, METHODS, Plugin, file_digest
from benchmark.rules import RULES, needs_validation
from benchmark.settings import Settings, check_settings, label, parse_settings
from benchmark.versions import NUMERICS

if TYPE_CHECKING:
    from benchmark.data import Dataset, TaskSpec  # not at run time: launchers plan and watch without torch


@dataclass(frozen=True)
class Sweep:
    """What the user asked for, as typed."""

    methods: Sequence[str]
    """Names or paths, each perhaps with settings in brackets: `ogm[alpha=0.1,0.3]`."""
    datasets: Sequence[str]
    seeds: Sequence[int] | str
    """Numbers, or as typed: `0-4`."""
    protocol: str = "unified"
    settings: Sequence[str] = ()
    """Assignments such as `ogm.alpha=0.3`, `avletters.split=speaker`, `protocol.optimizer.lr=0.1`."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the recipe from options such as `--epochs`."""
    presets: bool = False
    """Give each method the settings that the literature uses on a data set, where it has any; what was typed wins."""
    data_root: Path | None = None


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep, and the combinations that make no sense, with the reason."""

    runs: Sequence[RunSpec]
    unsupported: Sequence[tuple[str, str, str]]
    """(method, data set, reason)"""


@dataclass(frozen=True)
class _Choice:
    """A plugin with the settings the user gave."""

    plugin: Plugin
    kind: type[Any]
    given: Mapping[str, Any]

    def configured(self, settings: Mapping[str, Any]) -> Any:
        return parse_settings(self.kind.Config, settings, f"{self.plugin.kind.singular} {self.plugin.name}")

    def preset(self, dataset: str) -> _Choice:
        """Return the same method with what the literature sets on a data set under what the user gave."""
        return replace(self, given={**self.kind.presets.get(dataset, {}), **self.given})

    def spec(self, config: Settings) -> PluginSpec:
        return PluginSpec(
            name=self.plugin.name,
            label=label(self.plugin.name, config.changed()),
            source=self.plugin.source,
            attribute=self.plugin.attribute,
            config=config.model_dump(mode="json"),
            version=self.plugin.version(self.kind, config.parts),
            code=self.plugin.code(self.kind, config.parts),
            file=file_digest(Path(self.plugin.source)) if self.plugin.is_file else "",
        )


def plan(sweep: Sweep) -> Plan:
    """Resolve a sweep into runs.

    Raises:
        UserError: with every problem of the whole sweep.
    """
    problems = Problems()
    assigned = parse_assignments(sweep.settings, problems)
    methods = _choices(sweep.methods, METHODS.known() if "all" in sweep.methods else None, METHODS, assigned, problems)
    datasets = _choices(sweep.datasets, None, DATASETS, assigned, problems)
    protocol = None
    with problems.collect():
        protocol = load_protocol(sweep.protocol)
    with problems.collect():
        _check_targets(assigned, sweep, methods + datasets)
    seeds: Sequence[int] = []
    with problems.collect():
        seeds = parse_seeds(sweep.seeds) if isinstance(sweep.seeds, str) else sweep.seeds
        if not seeds:
            raise UserError(Problem("--seeds", "at least one seed", "none", "Write 0-4, 0,1,2 or 0."))
    if (count := len(methods) * len(datasets) * len(seeds)) > MAX_RUNS:  # else planning itself would take all memory
        raise UserError(Problem("the sweep", f"at most {MAX_RUNS} runs", f"{count}", "Split it."))
    recipe_changes = {**sweep.recipe, **assigned.get("protocol", {})}
    for method in methods:  # here too, since a bad data set keeps runs from being planned
        with problems.collect():
            check_settings(method.kind.Config, method.given, f"method {method.plugin.name}")
    runs: list[RunSpec] = []
    unsupported: list[tuple[str, str, str]] = []
    for choice in datasets:
        with problems.collect():
            name = choice.plugin.name
            config = choice.configured({**(protocol.data.get(name, {}) if protocol else {}), **choice.given})
            dataset = choice.kind(config, data_folder(sweep.data_root, choice.kind, name))
            recipe = None
            with problems.collect():
                recipe = protocol.resolve(name, choice.kind.recipe, recipe_changes) if protocol else None
            changes = protocol.replaced(name, choice.kind.recipe, recipe) if protocol and recipe else {}
            data = _describe(choice.spec(config), dataset, recipe, changes)
            if recipe:
                _check_selection(data, dataset, recipe)
            chosen = [method.preset(name) for method in methods] if sweep.presets else methods
            runs += _runs_of(data, chosen, seeds, protocol, recipe, unsupported, problems)
    problems.raise_any()
    return Plan(list({run.id: run for run in runs}.values()), list(dict.fromkeys(unsupported)))


@dataclass(frozen=True)
class _Data:
    """A data set of a sweep, with everything about it that decides the numbers."""

    spec: PluginSpec
    task: TaskSpec
    fingerprint: str
    split: str
    weights: Mapping[str, str]
    replaced: Mapping[str, Any]
    """What the protocol says where the recipe says something else."""


def _describe(spec: PluginSpec, dataset: Dataset, recipe: Recipe | None, replaced: Mapping[str, Any]) -> _Data:
    problems, fingerprint, split = Problems(), "", ""
    weights: Mapping[str, str] = {}
    with problems.collect():
        weights = dataset.weights()
    with problems.collect():
        fingerprint = dataset.fingerprint()
        split = _split_digest(spec, dataset, fingerprint, recipe.valid_share) if recipe else ""
    problems.raise_any()
    return _Data(spec, dataset.task, fingerprint, split, weights, replaced)


def _split_digest(spec: PluginSpec, dataset: Dataset, fingerprint: str, valid_share: float) -> str:
    """Return the digest of a data set's split; loads the data set the first time only."""

    def measure() -> str:
        from benchmark.loading import load_parts  # not before: launchers plan and watch without torch

        samples, split = load_parts(dataset, valid_share)
        return split.digest(samples.ids)

    made_by = [NUMERICS, spec.name, spec.version, spec.code]
    return cached_text("splits", [made_by, spec.config, fingerprint, valid_share], measure)


def _check_selection(data: _Data, dataset: Dataset, recipe: Recipe) -> None:
    """Refuse a main table by a rule that looks at validation where there is none.

    Raises:
        UserError: naming the rules that need none.
    """
    if recipe.valid_share or not needs_validation(recipe.selection):
        return

    def count() -> str:
        return str(len(dataset.split(dataset.load(), recipe.valid_share).valid))

    made_by = [NUMERICS, data.spec.name, data.spec.version, data.spec.code]
    if cached_text("validation", [made_by, data.spec.config, data.fingerprint, recipe.valid_share], count) != "0":
        return  # published beside train
    others = " or ".join(name for name in RULES if not needs_validation(name))
    got = f"{recipe.selection} with valid_share 0 on {data.spec.label}, which leaves no samples to validate on"
    advice = "Give protocol.valid_share a value above 0, or another protocol.selection."
    raise UserError(Problem("protocol.selection", f"a rule that needs no validation, {others}", got, advice))


def _runs_of(
    data: _Data,
    methods: Sequence[_Choice],
    seeds: Sequence[int],
    protocol: Protocol | None,
    recipe: Recipe | None,
    unsupported: list[tuple[str, str, str]],
    problems: Problems,
) -> Iterator[RunSpec]:
    torch_version = version("torch").partition("+")[0]
    for method in methods:
        with problems.collect():
            for variant in method.kind.expand(data.task):
                config = method.configured({**variant, **method.given})
                chosen = method.spec(config)
                reason = method.kind.unsupported(config, data.task)
                if reason is not None:
                    unsupported.append((chosen.label, data.spec.label, reason))
                    continue
                if protocol is None or recipe is None:
                    continue
                wrong = config.refuse(recipe.epochs)
                if wrong is not None:
                    raise UserError(
                        Problem(f"method {chosen.label} on {data.spec.label}", "settings that fit the run", wrong)
                    )
                for seed in seeds:
                    yield RunSpec(
                        method=chosen,
                        dataset=data.spec,
                        fingerprint=data.fingerprint,
                        split=data.split,
                        weights=dict(data.weights),
                        protocol=protocol.name,
                        recipe=recipe,
                        seed=seed,
                        numerics=NUMERICS,
                        torch=torch_version,
                        replaced=dict(data.replaced),
                    )


def open_dataset(name: str, data_root: Path | None = None, settings: Sequence[str] = ()) -> Dataset:
    """Construct a data set from what a user typed, such as `avletters[split=speaker]`."""
    problems = Problems()
    assigned = parse_assignments(settings, problems)
    choices = _choices([name], None, DATASETS, assigned, problems)
    problems.raise_any()
    choice = choices[0]
    root = data_folder(data_root, choice.kind, choice.plugin.name)
    dataset: Dataset = choice.kind(choice.configured(choice.given), root)
    return dataset


def _choices(
    tokens: Sequence[str],
    every: Mapping[str, Plugin] | None,
    kind: Any,
    assigned: Mapping[str, Mapping[str, Any]],
    problems: Problems,
) -> list[_Choice]:
    """Find and import every plugin that the tokens name; `all` means every known one."""
    choices = []
    wanted = [name for token in tokens for name in (every or {} if token == "all" and every else [token])]
    for token in wanted:
        with problems.collect():
            name, grid = parse_bracketed(token)
            plugin = kind.find(name)
            loaded = plugin.load()
            choices += [_Choice(plugin, loaded, {**assigned.get(plugin.name, {}), **given}) for given in grid]
    if not tokens:
        with problems.collect():
            raise UserError(Problem(f"--{kind.package.rpartition('.')[2]}", f"at least one {kind.singular}", "none"))
    return choices


def _check_targets(assigned: Mapping[str, Any], sweep: Sweep, choices: Sequence[_Choice]) -> None:
    known = {choice.plugin.name for choice in choices} | {"protocol"}
    typed = {token.partition("[")[0] for token in (*sweep.methods, *sweep.datasets)}
    unknown = [target for target in assigned if target not in known | typed]
    if unknown:
        raise UserError(
            *(
                Problem(
                    "--set", "a method or data set of this sweep, or 'protocol'", repr(target), nearest(target, known)
                )
                for target in unknown
            )
        )
