"""Kills an operation at each of its writes, runs it again, and asks that it ends as if nothing had happened.

`python tests/reliability/killing.py OPERATION FOLDER EVERY OFFSET` prints JSON. A process for each kill is forked from
this one, which has imported everything. What counts as a write is what Python tells its audit hooks below the folder:
opening for writing, renaming, linking, removing, making and removing folders; and syncing a file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch

import benchmark.check.synthetic
from benchmark.cli.report_command import make_reports
from benchmark.inputs.prepare import prepare
from benchmark.plan.sweep import Sweep, plan
from benchmark.records import State, scan, view_all
from benchmark.records.files import LITTER
from benchmark.registry import DATASETS, REPORTS
from benchmark.robustness.evaluator import Evaluator
from benchmark.train.attempt import Attempt
from benchmark.train.execute import execute

BLOBS = str(Path(benchmark.check.synthetic.__file__))
WRITES = {"os.rename": 1, "os.remove": 0, "os.link": 1, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0}
"""{audit event: place of the path that it changes among its arguments}"""
TIMES = ("record.json", "history.jsonl", "env.json", "status.json")
"""Files that hold times and attempts; of the record, all else is compared."""
COSTS = ("seconds", "gpu_seconds", "memory", "load")
"""Of a record: what an attempt cost, and what else its machine did."""


def train(folder: Path) -> None:
    spec = plan(Sweep(["concat"], [BLOBS], [0], recipe={"epochs": 2, "batch_size": 16})).runs[0]
    assert execute(spec, Attempt(folder / "runs")) is State.DONE


def evaluate(folder: Path) -> None:
    for run in scan(folder / "runs"):
        Evaluator(None, torch.device("cpu")).evaluate(run.folder)


def report(folder: Path) -> None:
    plugins = [REPORTS.find(name) for name in ("comparison", "curves")]
    make_reports(plugins, view_all(folder / "runs"), (), folder / "report", quiet=True, as_json=False)


def decode(folder: Path) -> None:
    os.environ["BENCH_CACHE"] = str(folder / "cache")
    kind = DATASETS.find(str(folder / "clips.py")).load()
    prepare(kind(kind.Config(), folder / "data"), 1, allow_missing=False)


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "run": train, "evaluation": evaluate, "report": report, "preparation": decode
}  # fmt: skip


def in_child(work: Callable[[], None]) -> int:
    """Return how a fork that did some work ended: 0, or minus the signal that killed it."""
    child = os.fork()
    if not child:
        code = 1
        try:
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(number: int, folder: Path, work: Callable[[Path], None]) -> None:
    """Do some work, and kill this process right before its write of that number below a folder."""
    root, seen = str(folder), [0]

    def count() -> None:
        seen[0] += 1
        if seen[0] > number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        else:
            path, writes = (arguments[WRITES[event]], True) if event in WRITES else ("", False)
        if writes and isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path).startswith(root):
            count()

    sync = os.fsync

    def counted(descriptor: int) -> None:
        count()
        sync(descriptor)

    os.fsync = counted
    sys.addaudithook(hear)
    work(folder)


def outcome(folder: Path) -> dict[str, str]:
    """Return a digest of each file, without times, locks and logs; what a killed write left is there by its name."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name in ("log.txt", ".lock", "lock", ".heartbeat", "__pycache__") or path.suffix == ".pyc":
            continue
        if path.name in ("env.json", "status.json", "last.pt", "manifest.json"):
            content = b"there"
        elif path.name == "record.json":
            record = json.loads(path.read_text())
            content = json.dumps({key: record[key] for key in record if key not in COSTS}).encode()
        else:
            content = path.read_bytes()
        found["LITTER " * bool(LITTER.fullmatch(path.name)) + name] = hashlib.sha256(content).hexdigest()
    return found


def main(operation: str, base: Path, every: int, offset: int) -> None:
    work = OPERATIONS[operation]

    def fresh(name: str) -> Path:
        folder = base.parent / f"{operation}-work" / name
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(base, folder)
        return folder

    folder = fresh("it")  # always of the same name: paths are in some files
    assert in_child(lambda: work(folder)) == 0
    expected = outcome(folder)
    killed, wrong, number = 0, [], offset
    while True:
        folder = fresh("it")
        end = in_child(lambda: killed_at(number, folder, work))  # noqa: B023  called at once
        if end == 0:
            break
        killed += 1
        # where a process of a pool was killed, the one that started it ends by itself and says so
        if (again := in_child(lambda: work(folder))) != 0:  # noqa: B023
            wrong.append(f"write {number}: the next one ended with {again}")
        elif (found := outcome(folder)) != expected:
            names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            wrong.append(f"write {number}: {', '.join(names)}")
        number += every
    sys.stdout.write(json.dumps({"operation": operation, "killed": killed, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
