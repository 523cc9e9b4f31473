"""Sum: a linear layer for each modality, logits summed, one cross-entropy on the sum.

    z = sum over m of z_m,    z_m = V_m u_m + c_m,    loss = CE(z, y)

As a function of the features it is `concat`, with V_m for the slices of W and the sum of the c_m for b. It trains
otherwise in two ways: each c_m gets the whole gradient of b, so the bias of the sum learns M times as fast, and each
V_m is drawn for its own width. From `late_sum` it differs by the loss, which couples the encoders through softmax(z).
One forward and one backward pass.

Paper: No paper: late fusion under one loss.

Released code: OGM's code adds half the bias to a modality it scores alone, the whole one in training.

Ours: The whole bias always; fused logits equal the released head's to the last bit.
"""

from __future__ import annotations

from benchmark.data import TaskSpec
from benchmark.method import Ledger, Method, Reference
from benchmark.model import LateHead, MultimodalNet


class Sum(Method):
    reference = Reference(
        "Joint training with summed logits (folklore)",
        code="GeWu-Lab/OGM-GE_CVPR2022 @ 343dc1d : models/fusion_modules.py",
    )
    ledger = Ledger(
        code="verified on the same tensors",
        paper="no paper",
        code_test="test_it_equals_concat_where_weights_agree_and_biases_add_up",
        paper_test="test_each_bias_gets_the_whole_gradient_of_the_sum",
    )

    def build_net(self, task: TaskSpec) -> MultimodalNet:
        return MultimodalNet(task.build_encoders(), lambda dims: LateHead(dims, task.num_classes))
