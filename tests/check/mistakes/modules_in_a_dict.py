"""Heads are kept in a dict by modality.

Says: use nn.ModuleDict in the place of the dict
"""

from torch import nn
from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class ModulesInADict(Method):
    reference = Reference("An example")

    def build_net(self, task):
        net = concat_net(task)
        self.heads = {m: nn.Linear(encoder.dim, task.num_classes) for m, encoder in net.encoders.items()}  # here
        return net

    def loss(self, out, batch):
        own = sum(F.cross_entropy(self.heads[m](u), batch.labels) for m, u in out.features.items())
        return super().loss(out, batch) + own
