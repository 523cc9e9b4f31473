"""What a run leaves on disk: one reader and one writer. Imports no torch."""

from benchmark.records.files import (
    SCHEMA,
    RecordError,
    RunFolder,
    machine,
    old_run_paths,
    run_path,
    to_json,
    write_atomic,
)
from benchmark.records.history import Epoch
from benchmark.records.status import HEARTBEAT, State, Status
from benchmark.records.views import RunView, as_seen, glance, scan, view, view_all

__all__ = [
    "HEARTBEAT",
    "SCHEMA",
    "Epoch",
    "RecordError",
    "RunFolder",
    "RunView",
    "State",
    "Status",
    "as_seen",
    "glance",
    "machine",
    "old_run_paths",
    "run_path",
    "scan",
    "to_json",
    "view",
    "view_all",
    "write_atomic",
]
