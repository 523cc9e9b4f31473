"""loss ends without return.

Says: loss returned nothing, expected a tensor: end it with `return`
"""

from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class LossWithoutReturn(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def loss(self, out, batch):  # here
        F.cross_entropy(out.fused, batch.labels)
