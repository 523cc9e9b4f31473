"""Concat: one linear layer on the concatenated features, one cross-entropy. The plain joint baseline.

Paper: No paper: the joint baseline of all.

Released code: One linear layer on the concatenated features; a modality's logits are its slice of it.

Ours: The same; slices sum to the plain layer's logits, as a test shows.
"""

from __future__ import annotations

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import MultimodalNet, concat_net


class Concat(Method):
    reference = Reference("Joint training with concatenation fusion (folklore)")
    ledger = Ledger(
        code="verified on the same tensors",
        paper="no paper",
        code_test="test_concat_slices_sum_to_the_plain_linear_layer",
        paper_test="test_concat_couples_what_late_sum_does_not",
    )

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)
