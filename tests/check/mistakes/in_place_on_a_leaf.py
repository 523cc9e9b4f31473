"""A parameter is clipped in place while gradients are recorded.

Says: a parameter is changed in place while gradients are recorded
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class InPlaceOnALeaf(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def loss(self, out, batch):
        self.net.head.bias.clamp_(-1, 1)  # here
        return super().loss(out, batch)
