"""A real Slurm cluster on this machine, once for the tests that share it; without Slurm the tests say so."""

from __future__ import annotations

import getpass
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

START = Path(__file__).with_name("start-slurm.sh")
STOP = Path(__file__).with_name("stop-slurm.sh")


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    root: Path
    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """Run a command of Slurm."""
        env = {**os.environ, **self.environment}
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=60).stdout

    def queue(self) -> dict[str, str]:
        """Return the state of every job by its id."""
        listed = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T").splitlines()
        return dict(line.split() for line in listed)

    def account(self) -> str:
        """Return the account that pays for this user's jobs."""
        wanted = ("show", "user", "where", f"name={getpass.getuser()}", "format=defaultaccount")
        return self.ask("sacctmgr", "--noheader", "--parsable2", *wanted).strip()

    def number_of_jobs(self) -> int:
        return len(self.queue())

    def stop_controller(self) -> None:
        """Stop slurmctld as an operator does; jobs go on."""
        os.kill(int((self.root / "run" / "slurmctld.pid").read_text()), 15)

    def start_controller(self) -> None:
        start(self.environment)

    @contextmanager
    def limit(self, jobs: int) -> Iterator[None]:
        """Let this user have so many jobs in the queue, more than there are now, for a while."""
        user = getpass.getuser()
        active = sum(state in ("PENDING", "RUNNING") for state in self.queue().values())
        self.ask("sacctmgr", "-i", "modify", "user", user, "set", f"MaxSubmitJobs={active + jobs}")
        try:
            yield
        finally:
            self.ask("sacctmgr", "-i", "modify", "user", user, "set", "MaxSubmitJobs=-1")


def start(settings: dict[str, str]) -> None:
    done = subprocess.run(
        [str(START)], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


def running(accounting: str, place: int) -> Iterator[Cluster]:
    """Start a cluster and stop it in the end. Several may run at once, each with ports of its own."""
    # a short path: the names of sockets may have 107 characters at most
    root = Path(tempfile.gettempdir()) / f"slurm-{os.getpid()}-{accounting}"
    settings = {
        "SLURM_TEST_ROOT": str(root),
        "SLURM_TEST_PORT": str(20000 + (2 * os.getpid() + place) % 300 * 20),
        "SLURM_TEST_ACCT": accounting,
        "SLURM_TEST_GRACE": "4",
        "SLURM_TEST_KEEP": "1",
        "SLURM_TEST_ARRAY": "5",
        "SLURM_CONF": str(root / "slurm.conf"),
    }
    try:
        start(settings)
        yield Cluster(root, settings)
    finally:
        subprocess.run([str(STOP), "--purge"], env={**os.environ, **settings}, timeout=120, check=True)


@pytest.fixture(scope="session")
def booked() -> Iterator[Cluster]:
    """A cluster with accounting."""
    yield from running("dbd", 0)


@pytest.fixture(scope="session")
def unbooked() -> Iterator[Cluster]:
    """A cluster without accounting: sacct fails."""
    yield from running("none", 1)


@pytest.fixture
def profile(tmp_path: Path) -> Callable[..., Path]:
    """Write a profile file for jobs that are small and quickly looked at."""

    def write(**changes: object) -> Path:
        settings = {"partition": "debug", "time": "30m", "gpus": 1, "cpus": 1, "memory": "900M"}
        settings |= {"poll": 1, "heartbeat": 2, **changes}
        lines = "".join(f"    {key}: {value}\n" for key, value in settings.items())
        path = tmp_path / "clusters.yaml"
        path.write_text(f"clusters:\n  test:\n{lines}", encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def parent_of() -> Callable[[int], int]:
    """Return the parent of a process; a worker's is the server that it was forked from, whose own is the launcher."""
    return lambda process: int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
