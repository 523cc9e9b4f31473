"""The files of a run, written so that a crash at any moment loses nothing.

runs/<dataset>/<method>/<first two digits of id>/s<seed>-<id>/
    spec.yaml  status.json  history.jsonl  record.json  predictions.parquet  embeddings.npz
    env.json  log.txt  missing.json  noise.json  checkpoint/{last,best_valid,oracle_test}.pt
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from filelock import FileLock

from benchmark.bounded import parse_json, parse_yaml, read_bytes
from benchmark.records import record as records
from benchmark.records.record import Record, RecordError
from benchmark.records.status import State, Status, parse_status
from benchmark.versions import migrate

YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, from libyaml where it is there: eight times as fast, which thousands of runs feel."""
MAX_FAST_YAML = 10_000
"""Characters up to which that loader can nest no deeper than the stack holds; a spec has one to two thousand."""

LOCK_PATIENCE = 1.0
"""Seconds to try for a run's lock: processes that only ask whether it is held hold it for an instant."""
LITTER = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""Name of the temporary file of a write, and of what was to be written."""
AHEAD = 300.0
"""Seconds that another machine's clock may be ahead of ours."""
SILENT_BEATS = 6
"""After as many missed heartbeats, a run on another machine counts as dead."""


def write_atomic(path: Path, content: bytes) -> None:
    """Replace a file in one step: it holds either the old content or the new, whatever happens.

    Its permissions are those that the user's umask gives to any new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        # with the permissions that the user's umask gives, as in a folder that a group works in
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_litter(folder: Path, names: Container[str] | None = None) -> None:
    """Remove the temporary files that writes into a folder left behind when they were killed.

    Args:
        folder: where.
        names: files whose temporary ones are meant; all by default.
    """
    for path in folder.glob(".*") if folder.is_dir() else ():
        found = LITTER.fullmatch(path.name)
        if found and (names is None or found[1] in names) and path.is_file():
            path.unlink(missing_ok=True)


def to_json(value: Any) -> bytes:
    """Encode as strict, readable JSON with sorted keys."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()


def machine() -> str:
    """Return the name of this machine, as the scheduler knows it where there is one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def scheduler_job() -> dict[str, str]:
    """Return the scheduler's job that this process is in: id, partition, account; empty where there is none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    number = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    if not number:
        return {}
    named = {"partition": "SLURM_JOB_PARTITION", "account": "SLURM_JOB_ACCOUNT"}
    return {"id": number} | {key: os.environ.get(name, "") for key, name in named.items()}


def run_path(out: Path, dataset: str, method: str, seed: int, digest: str) -> Path:
    """Return a run's folder. The shard keeps folders small; runs made before there were shards stay where they are."""
    parent, name = out / dataset / method, f"s{seed}-{digest}"
    return parent / name if (parent / name).exists() else parent / digest[:2] / name


def old_run_paths(parent: Path, seed: int) -> list[Path]:
    """Return the folders of a method's runs of a seed that are from before numbers had versions: their ids are shorter.

    Args:
        parent: the folder of a method on a data set.
        seed: of the runs.
    """
    name = f"s{seed}-{'[0-9a-f]' * 10}"
    return sorted([*parent.glob(name), *parent.glob(f"??/{name}")])


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoint"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.parquet"

    @property
    def embeddings(self) -> Path:
        return self.path / "embeddings.npz"

    def lock(self, patience: float = LOCK_PATIENCE) -> FileLock:
        """Return the lock that the process working on this run holds; the system frees it when it dies."""
        self.path.mkdir(parents=True, exist_ok=True)
        return FileLock(self.path / ".lock", timeout=patience)

    def is_locked(self) -> bool:
        """Return whether a living process works on this run."""
        try:
            # for reading, since the run may be another user's; and a pipe in its place must not hold us up
            with os.fdopen(os.open(self.path / ".lock", os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # no such file, or one that we may not read
            return False
        return False

    def is_alive(self, status: Status | None = None) -> bool:
        """Return whether a process works on this run, on this machine or another.

        On this machine the lock decides. Whether locks reach other machines depends on the file system, so there a
        run also counts as alive while its heartbeat is fresh.
        """
        return self.is_locked() or self.is_beating(status or self.last_status())

    def is_beating(self, status: Status) -> bool:
        """Return whether a run on another machine has written a heartbeat lately."""
        if status.state is not State.RUNNING or status.host == machine():
            return False
        try:
            last = (self.path / ".heartbeat").stat().st_mtime
        except OSError:
            last = status.updated
        # clocks may differ, but a heartbeat from far ahead would be awaited for ever
        return -AHEAD < time.time() - last < SILENT_BEATS * status.heartbeat

    def beat(self) -> None:
        """Write a heartbeat."""
        (self.path / ".heartbeat").touch()

    def size_of(self, *names: str) -> dict[str, int]:
        """Return the bytes of files of this run; 0 for those that are not there."""
        return {name: _size(self.path / name) for name in names}

    # --- cancelling --------------------------------------------------------------------------------------------

    def ask_to_cancel(self) -> None:
        """Ask the process that works on this run, or is about to, to stop."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "cancel").touch()

    def is_to_be_cancelled(self) -> bool:
        return (self.path / "cancel").exists()

    def allow(self) -> None:
        """Take back a request to cancel."""
        (self.path / "cancel").unlink(missing_ok=True)

    # --- writing -----------------------------------------------------------------------------------------------

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file of this run."""
        write_atomic(self.path / name, to_json(value))

    def write_status(self, status: Status) -> None:
        self.write("status.json", asdict(status))

    def append_history(self, line: Mapping[str, Any]) -> None:
        """Add one epoch to history.jsonl, on disk when this returns."""
        with (self.path / "history.jsonl").open("ab") as stream:
            stream.write(json.dumps(line, sort_keys=True, allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def cut_history(self, epochs: int) -> None:
        """Keep the first `epochs` lines of history.jsonl.

        Raises:
            RecordError: when there are fewer whole lines.
        """
        lines = self.read_history()
        if len(lines) < epochs:
            raise RecordError(f"history.jsonl has {len(lines)} whole lines, the checkpoint has {epochs} epochs")
        kept = b"".join(json.dumps(line, sort_keys=True).encode() + b"\n" for line in lines[:epochs])
        write_atomic(self.path / "history.jsonl", kept)

    def clear(self) -> None:
        """Remove the results of earlier attempts, all but the lock and the log, which the process has open."""
        for path in sorted(self.path.rglob("*"), reverse=True):
            if path not in (self.path / ".lock", self.log):
                path.rmdir() if path.is_dir() else path.unlink()

    def remove_litter(self) -> None:
        """Remove what killed writes left behind. For the process that holds the lock: others may be writing."""
        for folder in (self.path, self.checkpoints):
            remove_litter(folder)

    # --- reading -----------------------------------------------------------------------------------------------

    def read_spec(self) -> dict[str, Any]:
        """Return the spec as plain values, of today's form whatever wrote it.

        Raises:
            RecordError: when it is missing or damaged; a YAML file that was cut may still parse.
        """
        spec = _mapping(self.path / "spec.yaml", _read_yaml)
        needed = {"method", "dataset", "fingerprint", "split", "protocol", "recipe", "seed", "torch"}
        missing = needed - set(spec) or {"numerics"} - {"numerics" if key == "core" else key for key in spec}
        if missing:
            raise RecordError(f"spec.yaml: truncated or damaged (no {', '.join(sorted(missing))})")
        try:
            return _checked_spec(migrate(spec))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise RecordError("spec.yaml: damaged (method or dataset without name and code)") from None

    def read_status(self) -> Status:
        """Return the status; a run that never started is planned.

        Raises:
            RecordError: when status.json is damaged.
        """
        if not os.path.lexists(self.path / "status.json"):
            return Status()
        content = _mapping(self.path / "status.json", parse_json)
        try:
            return parse_status(content)
        except (TypeError, ValueError, KeyError) as error:
            raise RecordError(f"status.json: expected its fields, got {error}") from None

    def last_status(self) -> Status:
        """Return the status, for writing the next one: a damaged one counts as planned."""
        try:
            return self.read_status()
        except RecordError:
            return Status()

    def write_record(self, found: Record) -> None:
        """Write the record, with the bytes of the files that belong to it; they must be there already."""
        files = self.size_of(self.predictions.name, self.embeddings.name)
        self.write("record.json", replace(found, files=files, planned=digest_of(self.read_spec())).plain())

    def read_record(self, spec: Mapping[str, Any] | None = None) -> Record:
        """Return the record of a finished run.

        Args:
            spec: what its spec.yaml holds, to be compared with that of the record; None to leave that out.

        Raises:
            RecordError: when it is missing, truncated, of a newer version or another spec, or its predictions are gone
                or cut.
        """
        found = records.parse(self.plain_record())
        if spec is not None and found.planned and found.planned != digest_of(spec):
            raise RecordError("spec.yaml: damaged (not what the run was trained with)")
        return found

    def plain_record(self) -> dict[str, Any]:
        """Return the record of a finished run as plain values of today's schema.

        Raises:
            RecordError: when it is missing, truncated, of another version, or its predictions are gone or cut.
        """
        content = records.migrate(_mapping(self.path / "record.json", parse_json))
        for name, size in records.parse(content).files.items():
            found = _size(self.path / name)
            if found != size:
                raise RecordError(f"{name}: expected {size} bytes, got {found}")
        return content

    def read_history(self) -> list[dict[str, Any]]:
        """Return the epochs of history.jsonl up to the first damage; a torn last line is left out."""
        try:
            lines = read_bytes(self.path / "history.jsonl").split(b"\n")
        except (OSError, ValueError):
            return []
        whole = lines[:-1]  # after the last newline there is a torn line or nothing
        try:
            history: list[dict[str, Any]] = parse_json(b"[" + b",".join(whole) + b"]")
            if len(history) == len(whole) and all(isinstance(line, dict) for line in history):
                return history
        except ValueError:
            pass  # then up to the damage
        history = []
        for line in whole:
            try:
                history.append(_line(line))
            except ValueError:
                break
        return history

    def read_threads(self) -> int | None:
        """Return how many CPU threads trained the run last; None where that is not on record."""
        threads = self.read_environment().get("threads")
        return threads if isinstance(threads, int) else None

    def read_environment(self) -> dict[str, Any]:
        """Return what env.json says of machine, versions and command line; nothing where it is gone or damaged."""
        try:
            return _mapping(self.path / "env.json", parse_json)
        except RecordError:
            return {}

    def is_done(self) -> bool:
        """Return whether the run is finished and its record can be read."""
        try:
            return self.read_status().state is State.DONE and bool(self.read_record(self.read_spec()))
        except RecordError:
            return False


SHAPE: Mapping[str, type | tuple[type, ...]] = {
    "fingerprint": str, "split": str, "protocol": str, "torch": str, "seed": int, "numerics": int,
    "method": Mapping, "dataset": Mapping, "recipe": Mapping, "weights": Mapping,
}  # fmt: skip
"""Kinds of what a spec holds."""
PLUGIN_SHAPE: Mapping[str, type] = {"name": str, "label": str, "source": str, "code": str, "version": int}
"""Kinds of what it says of a method or a data set."""
ASIDE = ("source", "attribute", "file")
"""What it says of a plugin that may change: where that is."""


def _check_shape(content: Mapping[str, Any], shape: Mapping[str, Any], where: str) -> None:
    """Raise `RecordError` where a value is of another kind."""
    if missing := sorted(set(shape) - set(content)):
        raise RecordError(f"spec.yaml: damaged (no {', '.join(where + name for name in missing)})")
    for name, kind in shape.items():
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise RecordError(f"spec.yaml: damaged ({where}{name} is {type(content[name]).__name__})")


def _checked_spec(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a spec if all that is read of it without its plugins is of the right kind.

    Raises:
        RecordError: otherwise.
    """
    _check_shape(spec, SHAPE, "")
    for kind in ("method", "dataset"):
        _check_shape(spec[kind], PLUGIN_SHAPE, f"{kind}.")
    _check_shape(spec["recipe"], {"selection": str, "epochs": int}, "recipe.")
    return spec


def digest_of(spec: Mapping[str, Any]) -> str:
    """Return a digest of what a spec says, but for where its plugins are."""
    plain = {key: value for key, value in spec.items() if key not in ("method", "dataset")}
    for kind in ("method", "dataset"):
        plain[kind] = {key: value for key, value in spec[kind].items() if key not in ASIDE}
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _read_yaml(text: str) -> Any:
    # libyaml's loader follows brackets with the stack of C: some ten thousand of them in a damaged file end the process
    return parse_yaml(text, YAML if len(text) < MAX_FAST_YAML else yaml.SafeLoader)


def _line(text: bytes) -> dict[str, Any]:
    line = parse_json(text)
    if not isinstance(line, dict):
        raise ValueError("expected a mapping")
    return line


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # not there, not to be seen, or no name of a file
        return 0


def _mapping(path: Path, parse: Any) -> dict[str, Any]:
    try:
        content = parse(read_bytes(path).decode("utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path.name}: expected a file, got none") from None
    except OSError as error:
        raise RecordError(f"{path.name}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordError(f"{path.name}: truncated or damaged ({words})") from None
    if not isinstance(content, dict):
        raise RecordError(f"{path.name}: truncated or damaged (empty)")
    return content


def dig(content: Any, *keys: str) -> Any:
    """Return a value inside nested mappings; None where something on the way is missing or no mapping."""
    for key in keys:
        if not isinstance(content, Mapping):
            return None
        content = content.get(key)
    return content
