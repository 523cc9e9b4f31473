"""Options that several commands share, each defined once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from benchmark.launch.launch_options import LaunchOptions, flag, launch_options

Out = Annotated[Path, typer.Option("--out", help="Folder of the runs.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder with one folder for each data set; else $BENCH_DATA.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
ClusterFile = Annotated[
    Path | None, typer.Option("--cluster", help="File of cluster profiles; else ~/.config/bench/clusters.yaml.")
]
Trust = Annotated[bool, typer.Option("--trust", help=launch_options()["trust"][1].help)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]

Given = Mapping[str, Any]
"""What was typed of a group of options, by name; what was not typed is not in it."""

SWEEP: Mapping[str, Any] = {
    "datasets": Annotated[str | None, typer.Option(help="Data sets, e.g. dialpad,avletters[split=speaker].")],
    "seeds": Annotated[str | None, typer.Option(help="0-4, 0,1,7 or 5 (that one seed). Default 0.")],
    "protocol": Annotated[str | None, typer.Option(help="Protocol, by name or path. Default unified.")],
    "set": Annotated[
        list[str] | None, typer.Option("--set", help="target.key=value: ogm.alpha=0.3, protocol.optimizer.lr=0.1.")
    ],
    "presets": Annotated[
        bool, typer.Option("--presets", help="Give methods the settings of the literature on each data set.")
    ],
    "epochs": Annotated[int | None, typer.Option(help="Epochs, instead of the protocol's.")],
    "batch_size": Annotated[int | None, typer.Option(help="Training batch, instead of the protocol's.")],
    "precision": Annotated[str | None, typer.Option(help="fp32 (the same on any device, nearly), tf32 or bf16.")],
}
"""What to train, beside the methods: the keys of an experiment file that every sweep can change."""


def launch_parameters(has_defaults: bool = True) -> dict[str, Any]:
    """Return an option for each field of `LaunchOptions`: one that is added there is in every command.

    Args:
        has_defaults: whether what is not typed is at its default, else as it was when the runs were started.
    """
    parameters = {}
    for name, (kind, described) in launch_options().items():
        default = getattr(LaunchOptions, name)
        shown = "" if default in (None, False, "") or not has_defaults else f" Default {default}."
        declared = typer.Option(flag(name), help=described.help + shown)
        parameters[name] = Annotated[kind if kind is bool else kind | None, declared]
    return parameters


GROUPS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "sweep": lambda: SWEEP,
    "launch": launch_parameters,
    "changes": lambda: launch_parameters(has_defaults=False),
}
"""Groups of options, by the name of their parameter."""


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Put the options of a group in the place of each parameter of a command that `GROUPS` names.

    The command gets in their stead what was typed of them.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters, groups = [], {}
    for name, parameter in inspect.signature(command).parameters.items():
        if name not in GROUPS:
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        groups[name] = options = GROUPS[name]()
        for option, kind in options.items():
            default = False if kind.__origin__ is bool else None
            parameters.append(parameter.replace(name=option, default=default, annotation=kind))

    @wraps(command)
    def expanded(**values: Any) -> None:
        given = {
            name: {key: value for key in options if _is_given(value := values.pop(key))}
            for name, options in groups.items()
        }
        command(**values, **given)

    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _is_given(value: Any) -> bool:
    return value is not None and value is not False and value != []  # zero is a number


RUNS = LaunchOptions.out
"""Where runs go unless told otherwise."""
SOME_FAILED = 3
"""Exit code when some runs failed or cannot be read, or data are not as they should be; 2 is for bad input."""
STOPPED = 130
"""Exit code when the user stopped a command."""
SUBMITTED = "Submitted. bench status shows how far it is, bench wait waits for it."
"""What to say when runs go on without us."""
