"""Heads are kept in a list, as many a released code does.

Says: self.heads is a plain list, in which torch does not see heads[0].weight, heads[0].bias, heads[1].weight,
heads[1].bias: neither saved, nor moved to the device, nor in an optimizer; use nn.ModuleList
"""

from torch import nn
from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class ModulesInAList(Method):
    reference = Reference("An example")

    def build_net(self, task):
        net = concat_net(task)
        self.heads = [nn.Linear(encoder.dim, task.num_classes) for encoder in net.encoders.values()]  # here
        return net

    def loss(self, out, batch):
        pairs = zip(self.heads, out.features.values(), strict=True)
        return super().loss(out, batch) + sum(F.cross_entropy(head(u), batch.labels) for head, u in pairs)
