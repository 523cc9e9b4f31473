"""Parts of batches and batches put together keep inputs, labels and positions in step."""

from __future__ import annotations

import pytest
import torch
from benchmark.methods._batches import join, take

from benchmark.data import Batch

BATCH = Batch(
    {"audio": torch.arange(4.0)[:, None], "video": torch.arange(4.0) + 10}, torch.arange(4), torch.arange(4) + 5
)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (torch.tensor([3, 0, 3]), [3, 0, 3]),
        (torch.tensor([False, True, True, False]), [1, 2]),
        (slice(2), [0, 1]),
        (slice(2, None), [2, 3]),
        (torch.tensor([False] * 4), []),
    ],
)
def test_samples_are_taken_by_position_mask_and_slice(rows, expected):
    taken = take(BATCH, rows)
    assert taken.labels.tolist() == expected
    assert taken.index.tolist() == [5 + row for row in expected]
    assert taken.inputs["audio"][:, 0].tolist() == expected
    assert taken.inputs["video"].tolist() == [10 + row for row in expected]


def test_joining_what_was_taken_gives_it_back():
    joined = join([take(BATCH, slice(1)), take(BATCH, slice(1, 1)), take(BATCH, slice(1, None))])
    assert torch.equal(joined.labels, BATCH.labels)
    assert torch.equal(joined.index, BATCH.index)
    assert all(torch.equal(joined.inputs[m], x) for m, x in BATCH.inputs.items())


def test_one_batch_joined_is_itself():
    (inputs,) = [join([BATCH]).inputs]
    assert all(torch.equal(inputs[m], x) for m, x in BATCH.inputs.items())
