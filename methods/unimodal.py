"""Unimodal: one modality trained alone with a linear head. The bar that joint training must not fall below.

The bare name stands for one run for each modality.

Paper: No paper: the bar for joint training.

Released code: An encoder under a linear layer; AUG's own script is not published.

Ours: The same; one run for each modality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import LateHead, MultimodalNet


class Unimodal(Method):
    """The bare name stands for one run per modality."""

    reference = Reference("Unimodal training (folklore)")
    ledger = Ledger(
        code="no code",
        paper="no paper",
        paper_test="test_it_has_the_encoder_of_its_modality_alone",
    )

    class Config(Method.Config):
        modality: str
        """The modality to train on; no default, `unimodal` alone means each in turn."""

        def unsupported(self, task: TaskSpec) -> str | None:
            return task.unknown(self.modality)

    config: Config

    @classmethod
    def expand(cls, task: TaskSpec) -> Sequence[Mapping[str, Any]]:
        return [{"modality": modality} for modality in task.modalities]

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        encoders = task.build_encoders([self.config.modality])
        return MultimodalNet(encoders, lambda dims: LateHead(dims, task.num_classes))
