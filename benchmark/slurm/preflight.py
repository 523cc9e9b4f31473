"""What can be known to go wrong on a cluster before anything is submitted; all of it at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.slurm.profile import Request, minutes
from benchmark.slurm.scheduler import LIMIT, Partition, SilentError, ask, partitions

PRIVATE = {"tmpfs", "ramfs", "devtmpfs", "rootfs"}
"""File systems in the memory of one machine."""
PROBE_BYTES = 1 << 20
"""What is written to see whether there is room: small files may still fit where nothing else does."""


def sbatch_options(request: Request) -> dict[str, Any]:
    """Return what a request says to sbatch, by long names."""
    named: dict[str, Any] = {
        "time": minutes(request.time),
        "cpus-per-task": request.cpus,
        "gpus-per-node": request.gpus,
        "mem": request.memory,
        "partition": request.partition,
        "account": request.account,
        "constraint": request.constraint,
    }
    return {key: value for key, value in named.items() if value} | request.sbatch


def check_cluster(out: Path, requests: Iterable[Request]) -> None:
    """Raise `UserError` with everything that would keep jobs from running."""
    problems = Problems()
    with problems.collect():
        check_shared(out)
    with problems.collect():
        check_room(out)
    with problems.collect():
        known = partitions()
        for request in requests:
            with problems.collect():
                check_request(request, known)
    problems.raise_any()


def check_request(request: Request, known: dict[str, Partition]) -> None:
    """Raise `UserError` for what the cluster would refuse, or would let wait for ever."""
    default = next((name for name, partition in known.items() if partition.is_default), "")
    name = request.partition or default
    for each in name.split(","):
        if each not in known:
            raise UserError(Problem("partition", "a partition of the cluster", repr(each), nearest(each, known)))
        limit = known[each].minutes
        if limit is not None and minutes(request.time) > limit:
            got = f"{request.time} ({minutes(request.time)} minutes)"
            raise UserError(Problem("time", f"at most {limit} minutes in partition {each}", got))
    said = sbatch_options(request)
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in said.items()]
    try:
        ask("sbatch", "--test-only", *options, "--output=/dev/null", stdin="#!/bin/sh\ntrue\n", said=said)
    except SilentError as refusal:
        if LIMIT.search(str(refusal)):
            return  # it takes the request, only not now
        raise UserError(Problem("sbatch", "a request that the cluster takes", str(refusal))) from None


def check_shared(out: Path) -> None:
    """Raise `UserError` when no other machine can possibly see the output folder."""
    if ":" in str(out):
        raise UserError(Problem("--out", "a path without a colon, which PYTHONPATH cannot hold", str(out)))
    kind = file_system(out)
    if kind in PRIVATE:
        advice = "Choose a folder that all nodes share, such as one in your home."
        raise UserError(
            Problem("--out", "a folder on a shared file system", f"{out} ({kind}, this machine only)", advice)
        )


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on; empty where that cannot be known."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists()).resolve()
    mounts = [line.split()[1:3] for line in lines]
    above = [(point, kind) for point, kind in mounts if existing.is_relative_to(point.replace("\\040", " "))]
    return max(above, key=lambda mount: len(mount[0]))[1] if above else ""


def check_room(out: Path) -> None:
    """Raise `UserError` unless files of some size can be made in a folder."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise UserError(Problem("--out", "a folder with room for files", f"{out} ({error.strerror})")) from None
