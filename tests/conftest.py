"""What the tests share: a small data set, the command line in a process of its own, plugins, trainers, made-up runs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from filelock import FileLock

import benchmark.check.synthetic
from benchmark.check import check_plugin
from benchmark.check.synthetic import Blobs
from benchmark.cli import main
from benchmark.data import Dataset
from benchmark.method import Method
from benchmark.protocol import Recipe
from benchmark.records import RunFolder, State
from benchmark.registry import METHODS
from benchmark.settings import parse_settings
from benchmark.train.trainer import Trainer, build_method, load_feeds
from benchmark.training import Feed

torch.set_num_threads(1)

CPU = torch.device("cpu")
REPO = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move what needs Slurm or real data to the full tier; without its data a test is skipped and says so."""
    root = Path(os.environ.get("BENCH_DATA", "nowhere"))
    for item in items:
        named = [name for mark in item.iter_markers("data") for name in mark.args]
        if named or item.get_closest_marker("slurm") or item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.full)
        for name in named:
            if not (root / name).is_dir():
                item.add_marker(pytest.mark.skip(reason=f"no {name} under $BENCH_DATA"))


def load(path: Path) -> ModuleType:
    """Import a file beside the tests, which are no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", name="load")
def load_fixture() -> Callable[[Path], ModuleType]:
    return load


builder = load(REPO / "tests" / "made_up.py")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    rc: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """All it said, on one line, so that wrapping does not matter."""
        return " ".join((self.stdout + self.stderr).split())

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def command(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-P", "-m", "benchmark", *map(str, arguments)]


def environment(changes: dict[str, str] | None = None) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BENCH_")}
    return {**kept, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **(changes or {})}


def hear_interrupts() -> None:
    """Let Ctrl-C end a child, as a terminal's would: a shell that runs us in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run_bench(
    arguments: tuple[object, ...], cwd: Path, env: dict[str, str] | None = None, prefix: tuple[str, ...] = ()
) -> Done:
    line = [*prefix, *command(arguments)]
    done = subprocess.run(
        line, cwd=cwd, env=environment(env), capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def bench_in() -> Callable[..., Done]:
    """Run `bench ARGUMENTS` in a folder: `bench_in(folder, "run", ...)`."""
    return lambda folder, *arguments: run_bench(arguments, folder)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Done]:
    """Run `bench ARGUMENTS` in the test's folder, after the words of `prefix` if any, and return how it ended."""
    return lambda *arguments, env=None, prefix=(): run_bench(arguments, tmp_path, env, prefix)


@pytest.fixture
def bench_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run `bench ARGUMENTS` in the test's folder and in this process: for what neither trains nor starts processes."""

    def call(*arguments: object) -> Done:
        monkeypatch.chdir(tmp_path)
        for key in [key for key in os.environ if key.startswith("BENCH_")]:
            monkeypatch.delenv(key)
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Done(int(end.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `bench ARGUMENTS` without waiting; it and all its workers are gone when the test ends."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command(arguments),
            cwd=tmp_path, env=environment(env), stdout=pipe, stderr=pipe, text=True, start_new_session=True,
            preexec_fn=hear_interrupts,  # noqa: PLW1509  no other thread of ours holds a lock it needs
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the group that this fixture made, orphaned workers included
        process.communicate()


def wait_until(condition: Callable[[], Any], what: str, limit: float = 120.0) -> Any:
    """Poll until the condition holds and return its value; the limit is for hangs, never a measurement."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.02)
    pytest.fail(f"waited in vain for {what}")


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    return wait_until


@pytest.fixture(scope="session")
def blobs() -> str:
    """The path of a tiny data set plugin, for `--datasets`."""
    return str(Path(benchmark.check.synthetic.__file__))


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fill a folder once for all workers: `once("name", fill)` calls `fill(folder)` in the first of them only."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of this test run, and of all its workers

    def get(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                folder.mkdir()
                fill(folder)
                filled.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def finished(once: Callable[..., Path], bench_in: Callable[..., Done], blobs: str) -> Path:
    """The output folder of a finished sweep, two methods by two seeds. Read only."""

    def fill(folder: Path) -> None:
        options = ("--seeds", "0-1", "--epochs", "3", "--jobs", "2", "--out", "runs")
        done = bench_in(folder, "run", "--methods", "concat,late_sum", "--datasets", blobs, *options)
        assert done.rc == 0, done.said

    return once("finished", fill) / "runs"


IMPORT_EACH = """
import importlib, os, sys, traceback
unwanted, preloaded, *modules = sys.argv[1:]
for name in filter(None, preloaded.split(",")):
    importlib.import_module(name)  # from elsewhere and slow to start: once
assert not [name for name in sys.modules if name.partition(".")[0] == "benchmark"]
for module in modules:
    if not os.fork():
        try:
            importlib.import_module(module)
            print(module, *sorted(set(unwanted.split(",")) & set(sys.modules)), flush=True)
        except Exception:
            traceback.print_exc()
        os._exit(0)
    os.wait()
"""
"""Imports each module in a process of its own that has imported none of ours before, and prints what it loaded."""


def loaded_by(modules: Iterable[str], unwanted: set[str], preloaded: Iterable[str]) -> dict[str, list[str]]:
    """Return which of the unwanted modules each module loads when it is imported first; without those that fail."""
    line = [sys.executable, "-P", "-c", IMPORT_EACH, ",".join(unwanted), ",".join(preloaded), *modules]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == list(modules), "\n" + done.stderr
    return {name: found for name, *found in lines if found}


@pytest.fixture(scope="session", name="loaded_by")
def loaded_by_fixture() -> Callable[..., dict[str, list[str]]]:
    return loaded_by


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str, str], str]:
    """Write a plugin module and return its path."""

    def write(name: str, source: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def first_failure() -> Callable[[str, str], str]:
    """Return what the first failed contract test of that name says, running no test after it; empty if none fails."""

    def find(path: str, name: str) -> str:
        failed = (result for result in check_plugin(path) if result.failed and result.name.endswith(name))
        return next((result.detail for result in failed), "")

    return find


@pytest.fixture
def trainer() -> Callable[..., Trainer]:
    """Make a trainer: `trainer("ogm", {"alpha": 0.1}, seed=1, epochs=2)`; a class will do for the name."""

    def make(
        method: str | type[Method] = "concat",
        config: dict[str, Any] | None = None,
        seed: int = 0,
        dataset: Dataset | None = None,
        **recipe: Any,
    ) -> Trainer:
        kind = METHODS.find(method).load() if isinstance(method, str) else method
        chosen = Recipe(**{"epochs": 3, "batch_size": 16, "optimizer": {"kind": "sgd", "lr": 0.05}, **recipe})
        data = dataset or Blobs(Blobs.Config())
        settings = parse_settings(kind.Config, config or {}, "config")
        built = build_method(kind, settings, data.task, chosen, seed, CPU)
        return Trainer(built, load_feeds(data, chosen, CPU), chosen, seed, CPU)

    return make


@pytest.fixture
def made_up(tmp_path: Path) -> Callable[..., RunFolder]:
    """Write the files of a run that was never trained, with the score you want, under `tmp_path / "runs"`."""

    def write(
        method: str = "concat",
        seed: int = 0,
        accuracy: float = 0.5,
        oracle: float | None = None,
        state: State = State.DONE,
        cause: str = "",
        dataset: str = "blobs",
        protocol: str = "unified",
        updated: float = 1.0,
        code: str = "code",
        **recipe: Any,
    ) -> RunFolder:
        spec = builder.spec_of(method, dataset, seed, protocol, code=code, **recipe)
        number = sum(1 for _ in (tmp_path / "runs").glob("*/*/*"))
        path = tmp_path / "runs" / dataset / method / f"s{seed}-{number:010d}"
        folder: RunFolder = builder.write_run(path, spec, accuracy, oracle, state, cause, updated)
        return folder

    return write


@pytest.fixture(scope="session", name="builder")
def builder_fixture() -> ModuleType:
    """The module that makes up runs."""
    return builder


@pytest.fixture(scope="session")
def pretend() -> ModuleType:
    """The module of a device that is not there."""
    return load(REPO / "tests" / "pretend.py")


@pytest.fixture(scope="session")
def whole() -> Callable[[Feed], dict[str, torch.Tensor]]:
    """Return everything that a feed serves in order, {modality: (N, ...)}."""

    def gather(feed: Feed) -> dict[str, torch.Tensor]:
        parts = list(feed.in_order())
        return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}

    return gather
