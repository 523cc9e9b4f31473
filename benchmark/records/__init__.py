"""What a run leaves on disk: one reader and one writer. Imports no torch."""

from benchmark.records.arrays import (
    Embeddings,
    Predictions,
    Table,
    read_embeddings,
    read_table,
    write_embeddings,
    write_predictions,
)
from benchmark.records.evaluations import (
    ALL,
    EVALUATIONS,
    MIXED,
    Evaluation,
    MissingScores,
    NoiseScore,
    NoiseScores,
    RateScore,
    SubsetScore,
    is_evaluated,
)
from benchmark.records.files import (
    RunFolder,
    machine,
    old_run_paths,
    run_path,
    to_json,
    write_atomic,
)
from benchmark.records.history import Epoch
from benchmark.records.record import SCHEMA, Record, RecordError, RuleResult, Samples, Scores, Seconds
from benchmark.records.status import HEARTBEAT, State, Status
from benchmark.records.views import RunView, as_seen, glance, scan, view, view_all

__all__ = [
    "ALL",
    "EVALUATIONS",
    "HEARTBEAT",
    "MIXED",
    "SCHEMA",
    "Embeddings",
    "Epoch",
    "Evaluation",
    "MissingScores",
    "NoiseScore",
    "NoiseScores",
    "Predictions",
    "RateScore",
    "Record",
    "RecordError",
    "RuleResult",
    "RunFolder",
    "RunView",
    "Samples",
    "Scores",
    "Seconds",
    "State",
    "Status",
    "SubsetScore",
    "Table",
    "as_seen",
    "glance",
    "is_evaluated",
    "machine",
    "old_run_paths",
    "read_embeddings",
    "read_table",
    "run_path",
    "scan",
    "to_json",
    "view",
    "view_all",
    "write_atomic",
    "write_embeddings",
    "write_predictions",
]
