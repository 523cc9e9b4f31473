"""What to ask a cluster for: profiles in one YAML file, each a cluster or a way of using one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from benchmark.errors import Problem, Problems, UserError, nearest
from benchmark.plan.spec import RunSpec
from benchmark.protocol import read_text, read_yaml
from benchmark.records import HEARTBEAT
from benchmark.settings import Settings, check_settings, parse_settings

FILE = Path("~/.config/bench/clusters.yaml")
"""Where profiles are unless `--cluster` names a file."""

EXAMPLE = """clusters:
  main:
    partition: gpu
    time: 12h
    gpus: 1
    cpus: 4
    memory: 16G
"""
"""The smallest profile file, for messages."""

_UNITS = {"m": 1, "h": 60, "d": 24 * 60}
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d\d)(?::\d\d)?")


def minutes(text: str) -> int:
    """Read a duration: `90m`, `12h`, `2d`, or as Slurm writes it, `12:00:00` and `1-12:00:00`; seconds are dropped.

    Raises:
        ValueError: when it is none of these, or no whole minute.
    """
    number, unit = text[:-1], text[-1:]
    clock = _CLOCK.fullmatch(text)
    if clock:
        days, hours, rest = (int(value or 0) for value in clock.group("days", "hours", "minutes"))
        total = (days * 24 + hours) * 60 + rest
    elif number.isdecimal() and unit in _UNITS:
        total = int(number) * _UNITS[unit]
    else:
        raise ValueError("a duration such as 90m, 12h, 2d or '1-12:00:00'")
    if total < 1:
        raise ValueError("at least one minute")
    return total


def _duration(text: str) -> str:
    minutes(text)
    return text


def _amount(text: str) -> str:
    if not re.fullmatch(r"(\d+[KMGT]?)?", text):
        raise ValueError("an amount such as 900M or 16G")
    return text


RESERVED = {
    "array": "its jobs are one array for each kind of request",
    "comment": "jobs are found by it",
    "error": "logs are read from where they are",
    "job-name": "jobs are named by data set and method",
    "nodes": "a run works on one node; gpus: and per_gpu: say how many share it",
    "ntasks": "a run is one task",
    "ntasks-per-core": "a run is one task",
    "ntasks-per-gpu": "a run is one task",
    "ntasks-per-node": "a run is one task",
    "ntasks-per-socket": "a run is one task",
    "open-mode": "logs of several attempts are one file",
    "output": "logs are read from where they are",
    "parsable": "the id of a job is read from what sbatch prints",
    "quiet": "the id of a job is read from what sbatch prints",
    "signal": "notice: says how long before its end a job is told",
    "test-only": "nothing would be submitted",
    "wait": "bench wait waits",
    "wrap": "a job has its own script",
}
"""Options of sbatch that are not free, with the reason."""


def _free_options(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options that are ours, short names, and values that no option has."""
    wrong = []
    for name, value in options.items():
        long = name.lstrip("-").replace("_", "-")
        if long in RESERVED:
            wrong.append(f"no {name!r} ({RESERVED[long]})")
        elif len(long) < 2 or long != name:
            wrong.append(f"the long name of {name!r}, as in {{qos: high}}")
        elif not isinstance(value, str | int | float) or value is False:
            wrong.append(f"a text, a number or true for {name!r}")
    if wrong:
        raise ValueError(" and ".join(wrong))
    return options


class Request(Settings):
    """What one job asks for."""

    partition: str = ""
    """Partition; the cluster's default if empty."""
    account: str = ""
    """Account that pays; the user's default if empty."""
    time: Annotated[str, AfterValidator(_duration)] = "4h"
    """Limit of one job. A run that needs longer goes on in the next job."""
    gpus: int = Field(default=1, ge=0)
    """GPUs of one job, all on one machine."""
    cpus: int = Field(default=4, ge=1)
    """CPU cores of one job."""
    memory: Annotated[str, AfterValidator(_amount)] = ""
    """Memory of one job, such as 16G; the cluster's default if empty."""
    constraint: str = ""
    """Features that the machine must have."""
    sbatch: Annotated[dict[str, Any], AfterValidator(_free_options)] = {}
    """Further options of sbatch, by their long names: {qos: high, exclude: n7}; none of `RESERVED`."""

    def room(self, per_gpu: int) -> int:
        """Return how many runs one job trains at a time."""
        return max(self.gpus, 1) * per_gpu


class Profile(Request):
    """One way of using a cluster."""

    setup: list[str] = []
    """Shell lines before each job: module load, source."""
    per_gpu: int = Field(default=1, ge=1)
    """Runs that share a GPU, or a job's cores where it has no GPU."""
    throttle: int = Field(default=0, ge=0)
    """Most jobs of one array at a time; 0 for no limit."""
    array_size: int = Field(default=500, ge=1, le=1000)
    """Most jobs in one array."""
    retries: int = Field(default=5, ge=0)
    """How often in a row a run is started again without having finished an epoch."""
    notice: int = Field(default=90, ge=10)
    """Seconds before its time limit at which a job is told."""
    heartbeat: float = Field(default=HEARTBEAT, gt=0)
    """Seconds between heartbeats of a run."""
    poll: float = Field(default=10.0, gt=0)
    """Seconds between two looks at the queue."""
    methods: dict[str, dict[str, Any]] = {}
    """What single methods ask for instead: {aug: {time: 24h}}. Wins over data sets."""
    datasets: dict[str, dict[str, Any]] = {}
    """What single data sets ask for instead: {cremad: {memory: 64G}}."""

    def request_for(self, spec: RunSpec) -> Request:
        """Return what a run asks for."""
        own = self.model_dump(include=set(Request.model_fields))
        for changes in (self.datasets.get(spec.dataset.name, {}), self.methods.get(spec.method.name, {})):
            own |= changes
        return Request(**own)


class Clusters(Settings):
    """A file of profiles."""

    clusters: dict[str, Any]
    default: str = ""
    """The profile that `--on slurm` means; the first if empty."""


def read_profile(path: Path | None, name: str = "") -> tuple[str, Profile]:
    """Read a profile; the others of its file may be as they are.

    Args:
        path: the file; None for `FILE`.
        name: which profile; empty for the file's default.

    Returns:
        Its name and the profile.

    Raises:
        UserError: when there is no such file or profile, or with every mistake in it.
    """
    problems = Problems()
    found = load_profile(path, name, problems)
    problems.raise_any()
    return found


def load_profile(
    path: Path | None, name: str, problems: Problems, changes: Mapping[str, Any] | None = None
) -> tuple[str, Profile]:
    """Read a profile as far as it is sound, so that what it says can be checked further.

    Args:
        path: the file; None for `FILE`.
        name: which profile; empty for the file's default.
        problems: takes every mistake in it.
        changes: settings from the command line, which win.

    Returns:
        Its name and the profile without its mistakes.

    Raises:
        UserError: when there is no such file or profile.
    """
    file = (path or FILE).expanduser()
    if path is None and not file.exists():
        advice = f"Write one, or name another file with --cluster. The minimum:\n{EXAMPLE}"
        raise UserError(Problem("--on slurm", f"a cluster's profile in {FILE}", "no such file", advice))
    where = f"clusters {file}"
    content = parse_settings(Clusters, read_yaml(read_text(file, where), where), where)
    wanted = name or content.default or next(iter(content.clusters), "")
    if wanted not in content.clusters:
        raise UserError(Problem(where, "a known cluster", repr(wanted), nearest(wanted, content.clusters)))
    values = content.clusters[wanted]
    if not isinstance(values, dict):
        raise UserError(Problem(f"{where}, {wanted}", "settings, each on a line of its own", repr(values)))
    with problems.collect():
        _check(wanted, values, where)
    values = {key: value for key, value in values.items() if _is_sound(key, value)} | dict(changes or {})
    return wanted, parse_settings(Profile, values, f"{where}, {wanted}")


def _is_sound(key: str, value: Any) -> bool:
    try:
        _check("", {key: value}, "")
    except UserError:
        return False
    return True


def _check(name: str, values: Mapping[str, Any], where: str) -> None:
    problems = Problems()
    with problems.collect():
        parse_settings(Profile, values, f"{where}, {name}")
    for part in ("methods", "datasets"):
        found = values.get(part)
        for plugin, changes in found.items() if isinstance(found, dict) else ():
            if isinstance(changes, dict):
                with problems.collect():
                    check_settings(Request, changes, f"{where}, {name}, {part}, {plugin}")
    problems.raise_any()


def check_names(profile: Profile, methods: Iterable[str], datasets: Iterable[str], where: str) -> None:
    """Raise `UserError` for overrides of methods and data sets that there are not."""
    problems = Problems()
    for given, known, kind in (
        (profile.methods, set(methods), "method"),
        (profile.datasets, set(datasets), "data set"),
    ):
        for name in given:
            if name not in known:
                with problems.collect():
                    raise UserError(Problem(where, f"a known {kind}", repr(name), nearest(name, known)))
    problems.raise_any()
