"""Multitask: concat with an auxiliary classifier and cross-entropy for each modality. The control for auxiliary losses.

    loss = CE(z, y) + weight * sum over m of CE(z_m, y),    z = W [u_1 .. u_M] + b,    z_m = V_m u_m + c_m

Nothing balances anything, so a gain over `concat` that this has too is owed to the auxiliary losses alone: G-Blend,
MMPareto, MSES and others weigh, combine or stop these very losses. The fused prediction never reads the auxiliary
classifiers. One forward and one backward pass.

Paper: By Wei and Hu, who call it the uniform baseline of MMPareto: the sum of all losses.

Released code: The same.

Ours: The same, for any number of modalities.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from benchmark.data import Batch, TaskSpec
from benchmark.method import Ledger, Method, OffSwitch, Reference
from benchmark.model import MultimodalNet, Outputs, concat_net

from ._auxiliary import auxiliary_net, multitask_loss


class Multitask(Method):
    reference = Reference(
        "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance (its uniform baseline)",
        "ICML",
        2024,
        "GeWu-Lab/MMPareto_ICML2024 @ a339db3 : code/uniform_baseline.py",
    )
    off_switches = (OffSwitch({"weight": 0.0}, "concat"),)
    ledger = Ledger(
        code="verified on the same tensors",
        paper="no paper",
        code_test="test_loss_equals_an_independent_sum_of_cross_entropies",
        paper_test="test_an_encoder_gets_the_gradient_of_concat_plus_its_own",
    )

    class Config(Method.Config):
        weight: float = Field(default=1.0, ge=0)
        """Weight of each auxiliary cross-entropy beside the joint one (released code: 1); at 0 there are no auxiliary
        classifiers."""

    config: Config

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return auxiliary_net(task) if self.config.weight else concat_net(task)

    def loss(self, out: Outputs, batch: Batch) -> Tensor:
        if not self.config.weight:
            return super().loss(out, batch)
        return multitask_loss(out.fused, out.unimodal, batch.labels, self.config.weight)
