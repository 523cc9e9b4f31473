"""Numbers for each test sample: logits in predictions.parquet, features in embeddings.npz.

Shapes: N samples, K classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.records.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

KEYS = ("rule", "id", "label")
"""Columns that are no head."""
SAMPLES = ("ids", "labels")
"""Arrays that are no modality."""


@dataclass(frozen=True)
class Predictions:
    """Logits on test at the epoch that one rule chose."""

    rule: str
    ids: Sequence[str]
    """(N,)"""
    labels: NDArray[np.int64]
    """(N,)"""
    logits: Mapping[str, NDArray[np.float32]]
    """{"fused" or modality: (N, K)}"""


@dataclass(frozen=True)
class Table:
    """The whole of predictions.parquet: a row for each rule and test sample."""

    keys: pa.Table
    """The columns rule and id."""
    labels: NDArray[np.int64]
    """(rules x N,)"""
    logits: Mapping[str, NDArray[np.float32]]
    """{"fused" or modality: (rules x N, K)}"""

    def of(self, rule: str) -> Predictions:
        """Return the rows of one rule, none for a rule that is not there."""
        rows = self.keys["rule"].to_numpy() == rule
        logits = {head: values[rows] for head, values in self.logits.items()}
        return Predictions(rule, [str(one) for one in self.keys["id"].to_numpy()[rows]], self.labels[rows], logits)

    @property
    def rules(self) -> list[str]:
        """The rules that are there, in order of first appearance."""
        return [str(rule) for rule in self.keys["rule"].unique().to_pylist()]


def read_table(path: Path) -> Table:
    """Read the predictions of a run.

    Raises:
        OSError, ValueError: when there are none, or they are damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not path.is_file() and path.exists():
            raise ValueError("expected a regular file")
        with pq.ParquetFile(path) as file:  # read_table would look for a whole data set
            table = file.read(use_threads=False)
        heads = [name for name in table.column_names if name not in KEYS]
        logits = {head: matrix(table[head]) for head in heads}
        labels = table["label"]
        if not len(labels) or not pa.types.is_integer(labels.type):
            raise ValueError(f"expected rows with labels, got {len(labels)} of {labels.type}")
        if holes := [name for name in table.column_names if table[name].null_count]:
            raise ValueError(f"expected no empty cells, got some in {', '.join(holes)}")
        return Table(table.select(["rule", "id"]), labels.to_numpy(), logits)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes lead to
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def matrix(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column of lists as logits (N, K).

    Raises:
        ValueError: when they are not of one length.
    """
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(column.type):
        raise ValueError(f"expected lists of one length, got {column.type}")
    flat = pa.concat_arrays(column.chunks).flatten().to_numpy()
    logits: NDArray[np.float32] = flat.reshape(-1, column.type.list_size)
    return logits


def write_predictions(path: Path, found: Sequence[Predictions]) -> None:
    """Write predictions.parquet, the rules one after the other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    # no two logits are alike: a dictionary of them would cost a third in size and half in reading
    pq.write_table(pa.concat_tables(map(_rows, found)), buffer, use_dictionary=["rule", "id"])
    write_atomic(path, buffer.getvalue().to_pybytes())


def _rows(one: Predictions) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "rule": pa.array([one.rule] * len(one.ids)),
        "id": pa.array(one.ids),
        "label": pa.array(one.labels),
    }
    for head, values in one.logits.items():
        columns[head] = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.table(columns)


@dataclass(frozen=True)
class Embeddings:
    """Each modality's features of the test samples, at the epoch that validation chose."""

    ids: Sequence[str]
    """(N,)"""
    labels: NDArray[np.int64]
    """(N,)"""
    features: Mapping[str, NDArray[np.float32]]
    """{modality: (N, D)}"""


def read_embeddings(path: Path) -> Embeddings:
    """Read embeddings.npz.

    Raises:
        OSError, ValueError: when there is none, or it is damaged.
    """
    import numpy as np

    try:
        if not path.is_file() and path.exists():
            raise ValueError("expected a regular file")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes lead to
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    for name in SAMPLES:
        if name not in arrays:
            raise ValueError(f"expected an array {name}, got none")
    features = {name: values for name, values in arrays.items() if name not in SAMPLES}
    count = arrays["ids"].shape
    for name, values in arrays.items():
        if (values.ndim, values.shape[:1]) != (1 if name in SAMPLES else 2, count):
            raise ValueError(f"expected a row of {name} for each id, got shape {values.shape}")
    return Embeddings(arrays["ids"].tolist(), arrays["labels"], features)


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write embeddings.npz."""
    import numpy as np

    buffer = BytesIO()
    np.savez(buffer, labels=found.labels, ids=np.array(found.ids), **found.features)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
