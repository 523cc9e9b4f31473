"""Numbers for each test sample: logits in predictions.parquet, features in embeddings.npz.

Shapes: N samples, K classes, D dimensions.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.records.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

TEXTS = ("rule", "id")
"""Columns of text."""
KEYS = (*TEXTS, "label")
"""Columns that are no head."""
SAMPLES = ("ids", "labels")
"""Arrays that are no modality."""
MOST = 2**31
"""Bytes up to which the numbers or the texts of one file are read: a small file may hold very much of the same."""


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
        OSError, ValueError: when there are none, they are damaged, or more than `MOST` bytes, which its metadata tell.
    """
    import pyarrow.parquet as pq

    try:
        if not path.is_file() and path.exists():
            raise ValueError("expected a regular file")
        # read_table would look for a whole data set; texts stay in a dictionary until it is known how long they are
        with pq.ParquetFile(path, read_dictionary=list(TEXTS)) as file:
            _check_size(file)
            table = file.read(use_threads=False)
        heads = [name for name in table.column_names if name not in KEYS]
        logits = {head: matrix(table[head]) for head in heads}
        labels = table["label"]
        if holes := [name for name in table.column_names if table[name].null_count]:
            raise ValueError(f"expected no empty cells, got some in {', '.join(holes)}")
        return Table(_written_out(table.select(TEXTS)), labels.to_numpy(), logits)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a damaged file raises whatever its bytes lead to
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def _check_size(file: pq.ParquetFile) -> None:
    """Raise `ValueError` for predictions of other kinds, without rows, or too large, by their metadata alone."""
    import pyarrow as pa

    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    rows = sum(group.num_rows for group in groups)
    width = 0
    for field in file.schema_arrow:
        kind = field.type
        if field.name in TEXTS:
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if not pa.types.is_string(kind):
                raise ValueError(f"expected {field.name} as text, got {kind}")
            width += 4  # an index into the texts
        elif field.name == "label":
            if not rows or not pa.types.is_integer(kind):
                raise ValueError(f"expected rows with labels, got {rows} of {kind}")
            width += 8
        elif not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
            raise ValueError(f"expected lists of one length, got {kind} as {field.name}")
        else:
            width += kind.list_size * kind.value_type.bit_width // 8
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    stored = sum(max(8 * one.num_values, one.total_uncompressed_size) for one in columns)
    size = max(rows * width, stored)
    if size > MOST:
        raise ValueError(f"expected at most {MOST} bytes of numbers, got {size}")


def _written_out(texts: pa.Table) -> pa.Table:
    """Return columns of text without their dictionaries; `ValueError` where that would take too much memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in texts.column_names:
        for chunk in texts[name].chunks:
            size = pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices), min_count=0).as_py()
            if size > MOST:
                raise ValueError(f"expected at most {MOST} bytes of {name}, got {size}")
    return pa.table({name: texts[name].cast(pa.string()) for name in texts.column_names})


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
        OSError, ValueError: when there is none, it is damaged, or more than `MOST` bytes, which its headers tell.
    """
    import numpy as np

    try:
        if not path.is_file() and path.exists():
            raise ValueError("expected a regular file")
        _check_arrays(path)
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


def _check_arrays(path: Path) -> None:
    """Raise `ValueError` for arrays that are too large, or larger than what is stored, by their headers alone."""
    from numpy.lib import format as npy

    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        if total > MOST:
            raise ValueError(f"expected at most {MOST} bytes of arrays, got {total}")
        for member in members:
            with archive.open(member) as stream:
                old = npy.read_magic(stream) == (1, 0)
                shape, _, kind = (npy.read_array_header_1_0 if old else npy.read_array_header_2_0)(stream)
            if math.prod(shape) * max(kind.itemsize, 1) > member.file_size:
                raise ValueError(f"expected {kind} of shape {shape} in {member.filename}, got {member.file_size} bytes")


def write_embeddings(path: Path, found: Embeddings) -> None:
    """Write embeddings.npz."""
    import numpy as np

    buffer = BytesIO()
    np.savez(buffer, labels=found.labels, ids=np.array(found.ids), **found.features)  # type: ignore[arg-type]
    write_atomic(path, buffer.getvalue())
