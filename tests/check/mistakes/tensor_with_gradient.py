"""A learnt number is a tensor and no parameter.

Says: self.scale is a plain tensor, in which torch does not see scale: neither saved, nor moved to the device, nor
in an optimizer; make it an nn.Parameter
"""

import torch
from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class TensorWithGradient(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def __init__(self, config, task):
        super().__init__(config, task)
        self.scale = torch.ones((), requires_grad=True)  # here

    def loss(self, out, batch):
        return F.cross_entropy(self.scale * out.fused, batch.labels)
