"""Is training right on the device? By the command line that users give, and from the files that it leaves.

Runs of the same spec lie in the same place under any output folder, so sweeps are compared file by file.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu.report import Setting

EPOCHS = 2
FEW = "concat,aug"
"""Methods of a quick check."""
BOUND = 0.05
"""How far the training loss of the first epoch may be from a CPU's, relative. Sums in another order differ by 1e-6;
what a method draws on the device (dropout, noise, masks) differs from a CPU's draws and averages out over an epoch."""


def sweep_command(setting: Setting, out: Path, device: str, at_a_time: int, *options: str) -> list[str]:
    """Return the command that trains the methods."""
    chosen = FEW if setting.quick else "all"
    command = [sys.executable, "-P", "-m", "benchmark", "run", "--methods", chosen, "--datasets", "dialpad3"]
    command += ["--epochs", str(EPOCHS), "--device", device, "--out", str(out)]
    command += ["--jobs", str(at_a_time)] if device == "cpu" else ["--per-gpu", str(at_a_time)]
    return [*command, *options]


def sweep(setting: Setting, name: str, at_a_time: int, *options: str) -> Path:
    """Train the methods from nothing on the device; return where the runs are."""
    out = setting.folder / name
    shutil.rmtree(out, ignore_errors=True)
    command = sweep_command(setting, out, setting.device, _few(setting, at_a_time), *options)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    sys.stderr.write(done.stdout + done.stderr)
    for line in done.stdout.splitlines() + done.stderr.splitlines():
        if line.startswith("unsupported:"):
            setting.note(line.removeprefix("unsupported: ").partition(" on ")[0], "n/a", remark=line)
    return out


def _few(setting: Setting, at_a_time: int) -> int:
    return at_a_time if setting.on_gpu else len(os.sched_getaffinity(0))


def runs_of(out: Path) -> dict[str, Path]:
    """Return the run folders of a sweep by their place in it."""
    return {str(path.parent.relative_to(out)): path.parent for path in sorted(out.glob("*/*/*/*/status.json"))}


def label(place: str) -> str:
    """Return the method of a run, and the first of its id: some names stand for several."""
    _, method, _, run = Path(place).parts
    return f"{method} {run[-6:]}"


def status_of(run: Path) -> dict[str, Any]:
    """Return the state of a run; empty while it is being written."""
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((run / "status.json").read_text(encoding="utf-8"))
        return found
    return {}


def history_of(run: Path) -> list[dict[str, Any]]:
    """Return the epochs of a run."""
    return [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]


def finished(setting: Setting, out: Path) -> dict[str, Path]:
    """Note the runs that failed; return the others."""
    runs = runs_of(out)
    states = {place: status_of(run) for place, run in runs.items()}
    for place, status in states.items():
        if status.get("state") != "done":
            setting.note(label(place), str(status.get("state")), ok=False, remark=str(status.get("cause")))
    done = {place: run for place, run in runs.items() if states[place].get("state") == "done"}
    setting.note("runs done", f"{len(done)} of {len(runs)}", ok=0 < len(done) == len(runs))
    return done


def train_all(setting: Setting) -> None:
    """Every method two epochs, four at a time on the card."""
    finished(setting, sweep(setting, "whole", 4))


def compare_cpu(setting: Setting) -> None:
    """Train the same on a CPU; the first epoch's loss must be near."""
    out = setting.folder / "cpu"
    shutil.rmtree(out, ignore_errors=True)
    command = sweep_command(setting, out, "cpu", len(os.sched_getaffinity(0)))
    subprocess.run(command, stdout=sys.stderr, check=False)
    whole, worst = setting.folder / "whole", 0.0
    for place, run in finished(setting, out).items():
        if not (whole / place / "history.jsonl").exists():
            continue
        here, there = (history_of(folder)[0]["train"] for folder in (whole / place, run))
        key = "loss" if "loss" in there else min(there)
        apart = abs(here[key] - there[key]) / max(abs(there[key]), 1e-6)
        worst = max(worst, apart)
        setting.note(label(place), apart, "relative", ok=apart <= BOUND, remark=key)
    setting.note("furthest", worst, "relative", ok=worst <= BOUND, remark=f"bound {BOUND}")


def differences(setting: Setting, out: Path) -> None:
    """Note every run whose history or predictions are not, byte for byte, those of the first sweep."""
    whole, same, compared = setting.folder / "whole", 0, 0
    for place, run in finished(setting, out).items():
        first = whole / place
        if not (first / "record.json").exists():
            continue
        compared += 1
        other = [
            name
            for name in ("history.jsonl", "predictions.parquet")
            if (first / name).read_bytes() != (run / name).read_bytes()
        ]
        same += not other
        if other:
            setting.note(label(place), "other bits", ok=False, remark=", ".join(other))
    setting.note("the same bits", f"{same} of {compared}", ok=0 < same == compared)


def train_again(setting: Setting) -> None:
    """The same sweep again, in other company on the card."""
    differences(setting, sweep(setting, "twice", 8))


def kill_and_resume(setting: Setting) -> None:
    """Kill each run's process once it has a checkpoint; it is started again and must end in the same bits."""
    out = setting.folder / "killed"
    shutil.rmtree(out, ignore_errors=True)
    command = sweep_command(setting, out, setting.device, _few(setting, 8), "--retries", "5")
    process = subprocess.Popen(command, stdout=sys.stderr)
    killed: set[str] = set()
    while process.poll() is None:
        for place, run in _interruptible(out, killed):
            with suppress(ProcessLookupError):
                os.kill(status_of(run)["pid"], signal.SIGKILL)  # a worker of the sweep started here
                killed.add(place)
        time.sleep(0.005)
    runs = runs_of(out)
    resumed = sum(status_of(run).get("first_epoch", 0) > 0 for run in runs.values())
    setting.note("killed after an epoch", f"{len(killed)} of {len(runs)}", ok=bool(killed))
    setting.note("resumed from a checkpoint", f"{resumed} of {len(runs)}", ok=bool(resumed))
    differences(setting, out)


def _interruptible(out: Path, killed: set[str]) -> Iterator[tuple[str, Path]]:
    for place, run in runs_of(out).items():
        status = status_of(run)
        if place not in killed and status.get("state") == "running" and status.get("epoch", 0) > 0:
            yield place, run


def train_low_precision(setting: Setting) -> None:
    """An epoch in bfloat16: a run with a loss or logits that are not finite fails."""
    finished(setting, sweep(setting, "bf16", 8, "--precision", "bf16", "--epochs", "1"))
