"""The optimizer is given the encoders and not the head.

Says: expected every trainable parameter in an optimizer, got none for net.head.bias
"""

from benchmark.method import Method, Reference
from benchmark.model import concat_net


class EncodersAlone(Method):
    reference = Reference("An example")

    def build_net(self, task):
        return concat_net(task)

    def attach(self, run):  # here
        self.run = run
        self.optimizer = run.optimizer(self.net.encoders.parameters())
