"""ModalBench: a benchmark suite for imbalanced multimodal learning.

The Python API; nothing of it is imported before it is used, so `import benchmark` loads no torch:

    import benchmark as mb

    runs = mb.run(methods=["concat", "ogm"], datasets="dialpad", seeds=range(3))
    runs.to_frame()                      # tidy pandas: a row for each run, rule, head and metric
    runs.report("comparison")            # tables and pictures
    mb.load("runs").filter(method="ogm")
    model = mb.load_model(runs[0])       # model.predict(inputs), model.encode(inputs)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmark.api.running import run
    from benchmark.api.runs import Runs, load
    from benchmark.api.trained_model import TrainedModel, load_model

__version__ = "0.2.0"
__all__ = ["Runs", "TrainedModel", "load", "load_model", "run"]

_HOMES = {
    "Runs": "runs",
    "TrainedModel": "trained_model",
    "load": "runs",
    "load_model": "trained_model",
    "run": "running",
}
"""Module of `benchmark.api` that each name of the API comes from."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'benchmark' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"benchmark.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
