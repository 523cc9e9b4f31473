"""Labels and logits are swapped.

Says: labels stand where logits belong: F.cross_entropy(logits, labels)
"""

from torch.nn import functional as F

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class SwappedArguments(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def loss(self, out, batch):
        return F.cross_entropy(batch.labels, out.fused)  # here
