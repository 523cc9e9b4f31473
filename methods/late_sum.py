"""Late sum: a head and a cross-entropy for each modality, logits summed. The control for every late method.

Nothing couples the encoders, so a gain over `concat` that this has too is owed to late fusion, not to balancing.

Paper: No paper: the control for late methods.

Released code: No code; with `hidden=256` it is AUG's network with one classifier each.

Ours: Each modality trains as if it were alone, as a test shows.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import LateHead, MultimodalNet, Outputs, SharedOutputHead, summed_cross_entropy


class LateSum(Method):
    reference = Reference("Separate training with summed logits (folklore)")
    ledger = Ledger(
        code="no code",
        paper="no paper",
        paper_test="test_late_sum_trains_each_modality_as_if_it_were_alone",
    )

    class Config(Method.Config):
        hidden: int | None = Field(default=None, ge=1)
        """Units of a hidden layer of each modality before an output layer that all share, which is the head of AUG
        without boosting; None for one linear layer each."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        hidden = self.config.hidden
        if hidden is None:
            return MultimodalNet(task.build_encoders(), lambda dims: LateHead(dims, task.num_classes))
        return MultimodalNet(task.build_encoders(), lambda dims: SharedOutputHead(dims, hidden, task.num_classes))

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        return summed_cross_entropy(out.unimodal, batch.labels)
