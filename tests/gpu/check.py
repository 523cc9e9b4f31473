"""First light on a GPU: prove that the suite is right there, measure how fast it is, and write down both as it goes.

    python tests/gpu/check.py --out DIR [--minutes 8] [--device cpu --quick] [--official PATH] [--only PART,PART]

Parts run one after the other, the most important first, each in a process of its own behind a time limit: a crash or a
hang of one loses no other. After each line DIR holds all that is known so far, as `gpu.json` and as `gpu.md`.

Works from a bare checkout: nothing is installed. Packages that this Python lacks are taken from `.wheels/`, which
`tests/gpu/wheels.sh` fills. Exit code 0: all that was measured is as it should be; 1: something is not.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
PLUGINS = ("methods", "datasets", "reports", "experiments")
"""Folders that are packages inside `benchmark` once installed (setup.cfg)."""
MINUTES = 8.0
"""What the limits of the parts add up to, about."""
TAIL = 1500
"""Characters of what a failed part said last that are kept."""


@dataclass(frozen=True)
class Part:
    """One thing to find out."""

    name: str
    function: str
    """`module:function` in this folder."""
    seconds: float
    """Its limit, when all of them share `MINUTES`."""
    about: str
    needs_gpu: bool = False

    @property
    def trains(self) -> bool:
        """Whether it is one of those that train every method, which build on each other."""
        return self.function.startswith("correctness:")


PARTS = (
    Part("methods", "correctness:train_all", 90, "every method, two epochs on dialpad3, four at a time"),
    Part("cpu", "correctness:compare_cpu", 45, "loss of the first epoch against a CPU's"),
    Part("resumed", "correctness:kill_and_resume", 60, "each run killed and resumed: the same bits"),
    Part("twice", "correctness:train_again", 50, "the same again: the same bits"),
    Part("bf16", "correctness:train_low_precision", 40, "every method an epoch in bfloat16, finite"),
    Part("rates", "speed:measure_card", 15, "what the card itself does"),
    Part("steps", "speed:measure_steps", 50, "training steps on CREMA-D's shapes"),
    Part("waits", "speed:count_waits", 45, "host synchronisations in a step of each method, by CUDA's own count"),
    Part("graphs", "speed:measure_graphs", 20, "the same steps as CUDA graphs", needs_gpu=True),
    Part("growth", "growth:measure_classifiers", 20, "AUG with 1 and 20 classifiers"),
    Part("loading", "loading:measure_loading", 40, "waiting for the prepared store; evaluation's share of an epoch"),
    Part("packed", "speed:measure_packing", 40, "runs packed on the card against one after the other"),
    Part("compile", "speed:measure_compiled", 60, "the same steps under torch.compile", needs_gpu=True),
    Part("official", "speed:measure_official", 15, "the official AUG's step"),
)


def make_site(folder: Path) -> Path:
    """Lay the code out as an installed package, by links, with the packages that this Python lacks; return the folder.

    Besides `benchmark` it holds this folder as the package `gpu`.
    """
    package = folder / "benchmark"
    package.mkdir(parents=True, exist_ok=True)
    inside = {path.name: path for path in (REPO / "benchmark").iterdir() if path.name != "__pycache__"}
    for name, target in {**inside, **{name: REPO / name for name in PLUGINS}}.items():
        _link(package / name, target)
    _link(folder / "gpu", Path(__file__).resolve().parent)
    for wheel in sorted((REPO / ".wheels").glob("*.whl")):
        name, number, *tags = wheel.stem.split("-")
        fits = tags[0].startswith("py") or tags[0] == f"cp{sys.version_info[0]}{sys.version_info[1]}"
        if fits and _installed(name) != number:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
    return folder


def _link(place: Path, target: Path) -> None:
    place.unlink(missing_ok=True)
    place.symlink_to(target)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment(site: Path) -> dict[str, str]:
    """Return the environment of the parts: the code first, nothing from the current folder, one thread a library."""
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BENCH_")}
    return {**kept, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


def run_part(part: Part, arguments: argparse.Namespace, env: dict[str, str], limit: float, tell: Any) -> dict[str, Any]:
    """Run a part in a process of its own, calling `tell` now and then; return how it ended."""
    command = [sys.executable, "-P", "-m", "gpu.part", part.function, "--out", str(arguments.out), "--name", part.name]
    command += ["--device", arguments.device, "--seconds", str(limit), *["--quick"] * arguments.quick]
    command += ["--official", str(arguments.official)] if arguments.official else []
    said = arguments.out / "parts" / f"{part.name}.txt"
    began = time.monotonic()
    with said.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=env, start_new_session=True)
        try:
            while process.poll() is None and time.monotonic() - began < limit:
                time.sleep(0.2)
                tell()
            state = {None: "timed out", 0: "done"}.get(process.poll(), f"ended with code {process.poll()}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # the group that was made here, workers included
            process.wait()
    tail = "" if state == "done" else said.read_text(errors="replace")[-TAIL:]
    return {"state": state, "seconds": round(time.monotonic() - began, 1), "said": tail}


def run_lane(
    parts: Sequence[Part], *, arguments: argparse.Namespace, report: Any, env: dict[str, str], end: float
) -> None:
    """Run parts in their order until all are done or the time is up."""
    for part in parts:
        left = end - time.monotonic()
        limit = left if arguments.quick else min(part.seconds * arguments.minutes / MINUTES, left)
        report.begin(part.name, part.about)
        if part.needs_gpu and arguments.device == "cpu":
            report.end(part.name, {"state": "n/a on cpu"})
        elif limit < min(5.0, part.seconds / 2):
            report.end(part.name, {"state": "no time left"})
        else:
            report.end(part.name, run_part(part, arguments, env, limit, report.write))
        sys.stdout.write(report.line(part.name) + "\n")
        sys.stdout.flush()


def check(arguments: argparse.Namespace) -> int:
    """Run the parts, of a quick check two at a time; return the exit code."""
    arguments.out = arguments.out.resolve()
    (arguments.out / "parts").mkdir(parents=True, exist_ok=True)
    site = make_site(arguments.out / "site")
    sys.path.insert(0, str(site))
    report = importlib.import_module("gpu.report").Report(arguments.out, vars(arguments))
    end = time.monotonic() + 60 * arguments.minutes
    chosen = [part for part in PARTS if not arguments.only or part.name in arguments.only.split(",")]
    lanes = [[part for part in chosen if part.trains is trains] for trains in (True, False)]
    with ThreadPoolExecutor(len(lanes)) as pool:  # a part builds on those before it in its lane only
        told = partial(run_lane, arguments=arguments, report=report, env=environment(site), end=end)
        list(pool.map(told, lanes if arguments.quick else [chosen]))
    return report.exit_code


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description="Prove and measure the suite on a GPU.")
    parser.add_argument("--out", type=Path, required=True, help="folder of gpu.json, gpu.md and what the parts write")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="time for everything")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to try the script itself")
    parser.add_argument("--quick", action="store_true", help="small shapes and few methods")
    parser.add_argument("--official", type=Path, help="a checkout of the official AUG, to measure beside ours")
    parser.add_argument("--only", default="", help="parts to run, by name")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(check(parse()))
