"""How runs are trained and where: one object for the command line, the Python API, executors and what is on record.

Nothing of it changes a run's id. Imports nothing but the standard library, so that `bench --help` is quick.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from benchmark.errors import Problem, UserError

if TYPE_CHECKING:
    from benchmark.train.attempt import Attempt


@dataclass(frozen=True)
class Option:
    """Help and limits of a field of `LaunchOptions`, which is an option of every command that trains."""

    help: str
    minimum: int | None = None
    """The minimum."""


@dataclass(frozen=True)
class LaunchOptions:
    """How runs are trained and where. Each field is an option of that name of every command that trains.

    Raises:
        UserError: with every number that is too small.
    """

    device: Annotated[str, Option("auto, cpu, cuda (all GPUs in turn) or cuda:N.")] = "auto"
    jobs: Annotated[int | None, Option("Runs at a time. Default: GPUs, else CPU cores.", 1)] = None
    threads: Annotated[
        int, Option("CPU threads of each run, 0 to divide the cores among the jobs. 1 keeps numbers exact.", 0)
    ] = 1
    on: Annotated[str, Option("local, slurm, slurm:CLUSTER, inline (this process, to debug) or another engine.")] = (
        "local"
    )
    cluster: Annotated[Path | None, Option("File of cluster profiles; else ~/.config/bench/clusters.yaml.")] = None
    per_gpu: Annotated[int | None, Option("Runs that share a GPU, each in its own process.", 1)] = None
    retries: Annotated[
        int | None, Option("How often in a row a run whose process died is started again without progress.", 0)
    ] = None
    track: Annotated[str, Option("Mirror the runs to wandb, tensorboard or both; training never waits for it.")] = ""
    detach: Annotated[bool, Option("Submit and return, where jobs go on without this process.")] = False
    out: Annotated[Path, Option("Folder of the runs.")] = Path("runs")
    data_root: Annotated[Path | None, Option("Folder with one folder for each data set; else $BENCH_DATA.")] = None
    force: Annotated[bool, Option("Train again what is done.")] = False
    trust: Annotated[bool, Option("Import plugin files that lie in the folder of runs, whoever put them there.")] = (
        False
    )
    mix_threads: Annotated[
        bool, Option("Go on with runs trained so far with another number of CPU threads; their numbers are of neither.")
    ] = False

    def __post_init__(self) -> None:
        problems = [
            Problem(flag(name), f"at least {option.minimum}", str(value))
            for name, (_, option) in launch_options().items()
            if option.minimum is not None and (value := getattr(self, name)) is not None and value < option.minimum
        ]
        if problems:
            raise UserError(*problems)

    @property
    def engine(self) -> str:
        """Name of the executor."""
        return self.on.partition(":")[0]

    @property
    def place(self) -> str:
        """The part after the executor's name, such as a cluster; empty if there is none."""
        return self.on.partition(":")[2]

    def attempt(self, **own: Any) -> Attempt:
        """Return what a worker is told.

        Args:
            own: fields of `Attempt` that are known only when the worker starts, such as its device.
        """
        from benchmark.train.attempt import Attempt

        return Attempt(self.out, self.data_root, **{"force": self.force, **own})

    def changed(self, given: Mapping[str, Any]) -> LaunchOptions:
        """Return the same with some fields changed."""
        return replace(self, **given)

    def resolved(self) -> LaunchOptions:
        """Return the same for a process elsewhere: absolute paths, and the data root that the environment names."""
        known = os.environ.get("BENCH_DATA")
        data_root = self.data_root or (Path(known) if known else None)
        return replace(
            self,
            out=self.out.absolute(),
            data_root=data_root and data_root.expanduser().absolute(),
            cluster=self.cluster and self.cluster.expanduser().absolute(),
        )


@cache
def launch_options() -> Mapping[str, tuple[Any, Option]]:
    """Return the type of each field of `LaunchOptions`, with its help and limits."""
    hints = get_type_hints(LaunchOptions, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[0]) for name, hint in hints.items()}


def flag(name: str) -> str:
    """Return how a field is typed on the command line."""
    return f"--{name.replace('_', '-')}"
