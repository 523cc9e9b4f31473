"""What thousands of runs cost those who only look after them: planning, submitting, `bench status`.

    python tests/performance/scale.py

Submission is measured where a cluster answers (tests/slurm/start-slurm.sh starts one); its jobs are held and cancelled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import benchmark.check.synthetic
from benchmark.records import RunFolder, State, Status, run_path

BENCH = [sys.executable, "-P", "-m", "benchmark"]
PROFILE = "clusters: {test: {gpus: 1, cpus: 1, memory: 100M, sbatch: {hold: true}}}\n"
SBATCH = """#!/bin/sh
began=$(date +%s%N)
{sbatch} "$@"
code=$?
echo $(($(date +%s%N) - began)) >> {log}
exit $code
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        status(Path(folder), 5000)
        if shutil.which("sbatch") and not subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
            for count in (1000, 5000):
                submission(Path(folder), count)
        else:
            report("no cluster answers: submission not measured")


def report(line: str) -> None:
    sys.stdout.write(line + "\n")


def status(folder: Path, count: int) -> None:
    """Time `bench status` on run folders of which one in a hundred is not done."""
    out = folder / "many"
    for number in range(count):
        made = RunFolder(run_path(out, "cremad", "aug", number, f"{number * 2654435761 % 16**10:010x}"))
        made.path.mkdir(parents=True)
        for name in ("spec.yaml", "record.json", "predictions.parquet", "embeddings.npz"):
            (made.path / name).write_bytes(b"0123456789")
        sizes = made.size_of("spec.yaml", "record.json", "predictions.parquet", "embeddings.npz")
        state = State.FAILED if number % 100 == 0 else State.DONE
        described = Status(state, 1, 70, 70, 0.6, dataset="cremad", method="aug", seed=number, sizes=sizes)
        made.write_status(described)
    largest = max(len(names) + len(files) for _, names, files in os.walk(out))
    for options in ([], ["--json"], ["--all"]):
        began = time.perf_counter()
        subprocess.run([*BENCH, "status", "--out", str(out), *options], capture_output=True, check=False)
        report(f"bench status {' '.join(options)} on {count} runs: {time.perf_counter() - began:.2f} s")
    report(f"entries in the fullest folder: {largest}")


def submission(folder: Path, count: int) -> None:
    """Time `bench run --detach` of many runs, and sbatch within it."""
    profile, log, tools = folder / "clusters.yaml", folder / "sbatch.log", folder / "bin"
    profile.write_text(PROFILE)
    tools.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    wrapper = tools / "sbatch"
    wrapper.write_text(SBATCH.format(sbatch=shutil.which("sbatch"), log=log))
    wrapper.chmod(0o755)
    out = folder / f"submitted-{count}"
    command = [*BENCH, "run", "--methods", "concat", "--datasets", str(Path(benchmark.check.synthetic.__file__))]
    command += ["--seeds", f"0-{count - 1}", "--on", "slurm", "--cluster", str(profile), "--detach", "--out", str(out)]
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, env=env, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    calls = [int(line) / 1e9 for line in log.read_text().split()]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    report(f"submitting {count} runs: {wall:.1f} s, CPU of the driver {used:.1f} s")
    report(f"of which sbatch: {sum(calls):.1f} s in {len(calls)} calls, one of them only a test")
    began = time.perf_counter()
    subprocess.run([*BENCH, "status", "--out", str(out)], check=False, capture_output=True)
    report(f"bench status with {count} runs in the queue: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    report(f"the same command again, which adopts all: {time.perf_counter() - began:.1f} s")
    jobs = subprocess.run(["squeue", "-h", "-r", "-t", "PD", "-o", "%i"], capture_output=True, text=True, check=True)
    report(f"jobs in the queue: {len(jobs.stdout.split())}")
    for job in out.glob(".jobs/*/*/job"):
        subprocess.run(["scancel", job.read_text()], check=True)


if __name__ == "__main__":
    main()
