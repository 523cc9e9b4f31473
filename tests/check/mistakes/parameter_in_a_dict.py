"""Learnt weights are kept in a dict by modality.

Says: use nn.ParameterDict in the place of the dict
"""

import torch
from torch import nn

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class ParameterInADict(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def __init__(self, config, task):
        super().__init__(config, task)
        self.weights = {m: nn.Parameter(torch.ones(())) for m in task.modalities}  # here

    def loss(self, out, batch):
        return super().loss(out, batch) * sum(self.weights.values())
