"""Concat: one linear layer on the concatenated features, one cross-entropy. The plain joint baseline."""

from __future__ import annotations

from benchmark.data import TaskSpec
from benchmark.method import Method, Reference
from benchmark.model import MultimodalNet, concat_net


class Concat(Method):
    reference = Reference("Joint training with concatenation fusion (folklore)")

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return concat_net(task)
