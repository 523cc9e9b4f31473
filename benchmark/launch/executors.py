"""Where runs are trained: one interface for a run's whole life, and how engines are found.

Every executor trains the same bits; they differ in where they train. An engine of another distribution is one class
derived from `Executor`, declared as an entry point of the group `modalbench.executors`:

    [options.entry_points]
    modalbench.executors =
        ray = my_package.ray_executor:RayExecutor
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from benchmark.errors import Problem, UserError, nearest
from benchmark.launch.launch_options import LaunchOptions
from benchmark.plan.spec import RunSpec
from benchmark.records import RunView

GROUP = "modalbench.executors"
"""The entry-point group through which other distributions add engines."""
OWN = {
    "inline": "benchmark.launch.local:InlineExecutor",
    "local": "benchmark.launch.local:LocalExecutor",
    "slurm": "benchmark.slurm.executor:SlurmExecutor",
}
"""The package's own, declared in setup.cfg too; here, since an editable installation may be older than they are."""


def quiet(words: str) -> None:
    """Discard a line."""


class Executor(ABC):
    """Trains runs to their end, and knows the outcome of those that it was given.

    The state of a run is in its folder. An engine keeps what else it must know under the output folder, in a
    hidden folder of its own, so that another process can go on.
    """

    places: ClassVar[str] = ""
    """What may be named after a colon, as in `slurm:CLUSTER`; empty if nothing may."""
    outlives: ClassVar[bool] = False
    """Whether runs go on when this process ends, so that `--detach` makes sense."""
    farewell: ClassVar[str] = "Interrupted. Give the same command again to go on from the last checkpoints."
    """Message for a user who stopped it."""
    at_a_time: int = 1
    """How many runs it trains at a time, to estimate how long a sweep takes; known once they are prepared."""

    def __init__(self, options: LaunchOptions, tell: Callable[[str], None] = quiet) -> None:
        """Take what to do. Reads nothing and starts nothing yet, since it may only be asked for an overview.

        Args:
            options: how to train and where.
            tell: shows the user a line.
        """
        self.options = options
        self.tell = tell

    def prepare(self, specs: Sequence[RunSpec]) -> dict[str, Any]:
        """Make sure that runs can be trained, and start nothing.

        Returns:
            What `resume` must know later, in JSON types.

        Raises:
            UserError: with everything that would keep them from running.
        """
        return {}

    @abstractmethod
    def run(self, specs: Sequence[RunSpec]) -> Generator[float]:
        """Train every run, once prepared, to its end: done, failed or cancelled.

        Yields:
            Now and then, to let progress be shown: the seconds until the next look is worth it. Closing the iterator
            stops what would not go on without this process.

        Raises:
            UserError: when they cannot be trained here; nothing was started then.
        """

    def resume(self, specs: Sequence[RunSpec], known: Mapping[str, Any]) -> Generator[float]:
        """Go on with runs that `run` was given once, as it was given them; else the same as `run`.

        Args:
            specs: those that are not over.
            known: what `prepare` returned then.
        """
        self.prepare(specs)
        return self.run(specs)

    def overview(self, runs: Mapping[str, RunView]) -> tuple[Mapping[str, RunView], str]:
        """Add what only the engine knows, such as which runs wait in its queue. Only looks, and never raises.

        Args:
            runs: as their folders tell them, by folder below the output folder.

        Returns:
            The runs, those included that have no folder yet, and a remark if something cannot be known.
        """
        return runs, ""

    def cancel(self, runs: Sequence[RunView]) -> str:
        """Stop runs whose folders already hold the request to cancel; others that share a job with them go on.

        A worker of ours sees the request by itself. What waits in a queue, and has nothing else to do, is to be
        taken out of it and recorded as cancelled.

        Returns:
            A remark if something could not be done; empty if all was.
        """
        return ""

    def logs(self, run: RunView) -> Sequence[Path]:
        """Return the files of output of the run's job that the engine keeps beside the run's own log."""
        return ()


def known() -> dict[str, EntryPoint]:
    """Return the engines by name; the package's own come first and cannot be replaced."""
    own = {name: EntryPoint(name, place, GROUP) for name, place in OWN.items()}
    return {**{entry.name: entry for entry in entry_points(group=GROUP)}, **own}


def find_executor(name: str) -> type[Executor]:
    """Import an engine and return its class.

    Raises:
        UserError: when there is none of that name, or it cannot be imported.
    """
    engines = known()
    if name not in engines:
        raise UserError(Problem("--on", f"one of {', '.join(sorted(engines))}", repr(name), nearest(name, engines)))
    try:
        found = engines[name].load()
    except Exception as error:  # noqa: BLE001  whatever a distribution raises when it is imported is the reason shown
        raise UserError(Problem(f"--on {name}", "an engine that imports", f"{type(error).__name__}: {error}")) from None
    if not (isinstance(found, type) and issubclass(found, Executor)):
        raise UserError(Problem(f"--on {name}", f"a class derived from {Executor.__name__}", repr(found)))
    return found


def make_executor(options: LaunchOptions, tell: Callable[[str], None] = quiet) -> Executor:
    """Return the engine that options name.

    Raises:
        UserError: when there is none of that name, or it cannot do what they say.
    """
    kind = find_executor(options.engine)
    if options.place and not kind.places:
        raise UserError(Problem("--on", f"{options.engine} alone", repr(options.on)))
    if options.detach and not kind.outlives:
        raise UserError(Problem("--detach", "an engine that goes on without this process", f"--on {options.on}"))
    return kind(options, tell)
