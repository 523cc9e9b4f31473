"""`benchmark.run`: what `bench run` does, from Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmark.api.runs import Runs
from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.launch.driver import missing, train
from benchmark.launch.launch_options import LaunchOptions, launch_options
from benchmark.plan.experiment import sweep_of
from benchmark.plan.sweep import plan
from benchmark.records import RunFolder, view

Names = str | Iterable[str]


def run(
    methods: Names | None = None,
    datasets: Names | None = None,
    seeds: int | str | Iterable[int] | None = None,
    *,
    experiment: str | Path | None = None,
    protocol: str | None = None,
    settings: Mapping[str, Any] | None = None,
    presets: bool = False,
    epochs: int | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    **options: Any,
) -> Runs:
    """Train, evaluate and record what is missing of methods x data sets x seeds; return when all runs are over.

    A run that fails does not stop the others: `runs.filter(state="failed").overview()` says why. What is finished is
    not trained again, and an interrupted run goes on from its last epoch.

    Args:
        methods: names or paths, each perhaps with settings: `["concat", "ogm[alpha=0.1,0.3]"]`.
        datasets: likewise.
        seeds: `range(3)`, `[0, 1, 7]`, `"0-4"` or one seed; 0 by default.
        experiment: an experiment file, over which the other arguments win.
        protocol: name of a protocol or path of a YAML file; `unified` by default.
        settings: values by target, as `--set` takes them: `{"ogm.alpha": 0.3, "protocol.optimizer.lr": 0.01}`.
        presets: give methods the settings of the literature on each data set.
        epochs: instead of the protocol's.
        batch_size: training samples in a batch, instead of the protocol's.
        precision: `fp32` (bitwise reproducible) or `bf16`.
        options: where and how to train, as `bench run` names them: `on`, `out`, `data_root`, `device`, `jobs`,
            `threads`, `retries`, `track`, `force` ... With `on="slurm", detach=True` it returns once all is submitted.

    Returns:
        The runs asked for, those finished before included, and in `unsupported` what makes no sense, with the reason.

    Raises:
        UserError: with every problem of the sweep; nothing was started then.
        KeyboardInterrupt: when the user stopped it; checkpoints stay, and the same call goes on.
    """
    chosen = _launch_options(options)
    typed = {
        "methods": _listed(methods),
        "datasets": _listed(datasets),
        "seeds": _seeds(seeds),
        "protocol": protocol,
        "epochs": epochs,
        "batch_size": batch_size,
        "precision": precision,
        "set": [f"{target}={_typed(value)}" for target, value in (settings or {}).items()] or None,
        "presets": presets or None,
    }
    given = {key: value for key, value in typed.items() if value is not None}
    planned = plan(sweep_of(Path(experiment) if experiment else None, given, chosen.data_root))
    train(planned.runs, missing(planned.runs, chosen), chosen, Path(experiment).stem if experiment else "")
    views = [view(RunFolder(spec.folder(chosen.out))) for spec in planned.runs]
    return Runs(views, planned.unsupported)


def _launch_options(given: Mapping[str, Any]) -> LaunchOptions:
    """Return the options of that name; raise `UserError` for each that there is not, with the nearest name."""
    known = launch_options()
    problems = Problems()
    for name in given:
        with problems.collect():
            if name not in known:
                raise UserError(Problem("run", "a known argument", repr(name), nearest(name, known)))
    problems.raise_any()
    paths = {name: Path(given[name]).expanduser() for name in ("out", "data_root", "cluster") if given.get(name)}
    return LaunchOptions(**{**given, **paths})


def _listed(names: Names | None) -> str | None:
    """Return names as they are typed on the command line, with commas."""
    return names if names is None or isinstance(names, str) else ",".join(map(str, names))


def _seeds(seeds: int | str | Iterable[int] | None) -> str | None:
    if seeds is None or isinstance(seeds, str):
        return seeds
    return str(seeds) if isinstance(seeds, int) else ",".join(map(str, seeds))


def _typed(value: Any) -> str:
    """Return a value as it is typed after `--set target=`."""
    return value if isinstance(value, str) else json.dumps(value)
