"""Where runs are trained. Every executor trains the same bits; they differ in who waits for whom."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmark.launch.launcher import Launcher, Resources
from benchmark.plan.spec import RunSpec
from benchmark.records import RunFolder
from benchmark.train.attempt import Attempt


class Executor(ABC):
    """Brings runs to their end."""

    at_a_time: int
    """How many runs it trains at a time, to estimate how long a sweep takes."""

    farewell = "Interrupted. Give the same command again to go on from the last checkpoints."
    """What to tell a user who stopped it."""

    @abstractmethod
    def run(self, specs: Sequence[RunSpec], tick: Callable[[], None]) -> None:
        """Train every spec to its end, done or failed; calls `tick` now and then to show progress.

        Raises:
            UserError: when they cannot be trained here; nothing was started then.
            KeyboardInterrupt: when the user stopped it; what is finished stays.
        """


class InlineExecutor(Executor):
    """One run after another in this very process, for debuggers."""

    at_a_time = 1

    def __init__(self, attempt: Attempt, resources: Resources) -> None:
        self.attempt = replace(attempt, device=resources.device_of(0), threads=resources.threads)

    def run(self, specs: Sequence[RunSpec], tick: Callable[[], None]) -> None:
        from benchmark.train.execute import LOG_FORMAT, execute, single_run

        root = logging.getLogger()
        root.setLevel(logging.INFO)
        for spec in specs:
            folder = RunFolder(spec.folder(self.attempt.out))
            folder.path.mkdir(parents=True, exist_ok=True)
            handlers = (logging.StreamHandler(), logging.FileHandler(folder.log, encoding="utf-8"))
            for handler in handlers:
                handler.setFormatter(logging.Formatter(LOG_FORMAT))
                root.addHandler(handler)
            try:
                with single_run(self.attempt.threads):
                    execute(spec, self.attempt)
            finally:
                for handler in handlers:
                    root.removeHandler(handler)
                    handler.close()
            tick()


class LocalExecutor(Executor):
    """Processes on this machine, which divide its GPUs and threads."""

    def __init__(self, attempt: Attempt, resources: Resources, retries: int = 0) -> None:
        self.at_a_time = resources.jobs
        self._launcher = Launcher(attempt, resources, retries)

    def run(self, specs: Sequence[RunSpec], tick: Callable[[], None]) -> None:
        self._launcher.launch(specs, tick)
